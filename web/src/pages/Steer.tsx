import { useRef, useState } from "react";
import { stream } from "../api/client";
import type { components } from "../api/schema";
import { short } from "../format";
import { useDictionary, useHouse } from "../house";
import { Choice, Field, Link, Verdict } from "../parts/common";
import { useNumber, useParam } from "../route";

type Steered = components["schemas"]["Steered"];
type Turned = components["schemas"]["Turned"];
interface Event { prompt?: string; plain?: string; steered?: string; done?: boolean; cost?: number; verdict?: string; nats?: number[]; error?: string }
interface Turn { role: "user" | "assistant" | "system"; content: string }

// "192:2,7:-1" in the address: latents and their strengths
const readLatents = (text: string) => text.split(",").filter(Boolean).map((part) => {
  const [latent, strength] = part.split(":");
  return { latent: Number(latent) || 0, strength: Number(strength ?? 1) || 0 };
});

export function SteerPage() {
  const house = useHouse();
  const [d] = useDictionary();
  const [prompt, setPrompt] = useParam("prompt", house.prompt);
  const [latents, setLatents] = useParam("l", house.shipped && d?.endsWith("resid_post.5/w1024") ? "192:2" : "0:2");
  const [mode, setMode] = useParam("mode", "add");
  const [at, setAt] = useParam("at", "all");
  const [words, setWords] = useNumber("n", 40);
  const [temperature, setTemperature] = useNumber("t", 1);
  const [seed, setSeed] = useNumber("seed", 0);
  const [chat, setChat] = useParam("chat", "");
  const [turns, setTurns] = useState<Turn[]>([{ role: "user", content: "" }]);
  const [out, setOut] = useState<{ plain: string; steered: string; end?: Event } | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const stop = useRef<AbortController | null>(null);
  const rows = readLatents(latents);
  const write = (next: { latent: number; strength: number }[]) => setLatents(next.map((r) => `${r.latent}:${r.strength}`).join(","));

  const run = async () => {
    stop.current?.abort();
    const control = (stop.current = new AbortController());
    setOut({ plain: "", steered: "" });
    setError(null);
    setBusy(true);
    const body: Steered = {
      prompt: chat ? "" : prompt, chat: chat ? turns.filter((t) => t.content.trim()) : [], at: at as Steered["at"],
      latents: rows.map((r) => ({ ...r, mode: mode as Turned["mode"], unit: mode === "scale" || mode === "ablate" ? "raw" : "max", dictionary: d })),
      new_tokens: words, temperature, seed,
    };
    try {
      await stream<Event>("/steer", body, (event) => {
        if (event.error) setError(event.error);
        else setOut((old) => ({ plain: (old?.plain ?? "") + (event.plain ?? ""), steered: (old?.steered ?? "") + (event.steered ?? ""), end: event.done ? event : old?.end }));
      }, control.signal);
    } catch (e) {
      if ((e as Error).name !== "AbortError") setError((e as Error).message);
    }
    if (stop.current === control) setBusy(false);
  };

  return (
    <>
      <h1>Steer</h1>
      <div className="steer">
        <form className="panel" aria-label="Settings" onSubmit={(e) => { e.preventDefault(); void run(); }}>
          {house.model.chat && <Choice name="Form" value={chat as "" | "1"} options={{ "": "text", "1": "chat" }} onChange={setChat} />}
          {chat ? turns.map((t, i) => (
            <Field key={i} label={`${t.role} says`}><textarea rows={2} value={t.content} onChange={(e) => setTurns(turns.map((x, j) => (j === i ? { ...x, content: e.target.value } : x)))} /></Field>
          )) : <Field label="Text"><textarea rows={3} value={prompt} onChange={(e) => setPrompt(e.target.value)} /></Field>}
          {chat && <button type="button" onClick={() => setTurns([...turns, { role: turns.at(-1)?.role === "user" ? "assistant" : "user", content: "" }])}>Another turn</button>}
          <fieldset>
            <legend>Latents</legend>
            {rows.map((r, i) => (
              <div key={i} className="turned">
                <Field label="Latent"><input type="number" min={0} value={r.latent} onChange={(e) => write(rows.map((x, j) => (j === i ? { ...x, latent: +e.target.value } : x)))} /></Field>
                <Field label={`Strength ×${short(r.strength)}`} grow>
                  <input type="range" min={mode === "ablate" ? 0 : -16} max={mode === "ablate" ? 1 : 16} step={mode === "ablate" ? 0.05 : 0.25} value={r.strength} onChange={(e) => write(rows.map((x, j) => (j === i ? { ...x, strength: +e.target.value } : x)))} />
                </Field>
                <Link to={`/latent/${r.latent}?d=${encodeURIComponent(d ?? "")}`} className="button">open</Link>
                {rows.length > 1 && <button type="button" aria-label={`Leave out latent ${r.latent}`} onClick={() => write(rows.filter((_, j) => j !== i))}>×</button>}
              </div>
            ))}
            <button type="button" onClick={() => write([...rows, { latent: 0, strength: 1 }])}>Another latent</button>
          </fieldset>
          <div className="row">
            <Field label="How"><select value={mode} onChange={(e) => setMode(e.target.value)}><option value="add">add</option><option value="clamp">clamp to</option><option value="scale">scale by</option><option value="ablate">ablate</option></select></Field>
            <Field label="Where"><select value={at} onChange={(e) => setAt(e.target.value)}><option value="all">everywhere</option><option value="prompt">in the text</option><option value="generated">in what is new</option></select></Field>
            <Field label="Words"><input type="number" min={1} max={1024} value={words} onChange={(e) => setWords(+e.target.value)} /></Field>
            <Field label="Temperature"><input type="number" min={0} max={10} step={0.1} value={temperature} onChange={(e) => setTemperature(+e.target.value)} /></Field>
            <Field label="Seed"><input type="number" min={0} value={seed} onChange={(e) => setSeed(+e.target.value)} /></Field>
          </div>
          <div className="row">
            <button type="submit" className="main" disabled={!rows.length}>Continue</button>
            {busy && <button type="button" onClick={() => { stop.current?.abort(); setBusy(false); }}>Stop</button>}
            <button type="button" onClick={() => void navigator.clipboard?.writeText(window.location.href)}>Copy link</button>
          </div>
          <p className="dim small">The strength is in units of the latent's largest activation; the error of the dictionary is left alone. All settings stand in the address.</p>
        </form>
        <div className="sides" aria-live="polite" aria-busy={busy}>
          {error && <p className="error" role="alert">{error}</p>}
          {(["plain", "steered"] as const).map((side, i) => (
            <section key={side} className="panel">
              <h2>{side === "plain" ? "As it is" : "Steered"} {side === "steered" && out?.end?.verdict && <Verdict cost={out.end.cost!} text={out.end.verdict} />}</h2>
              <p className="said"><span className="dim">{chat ? "" : prompt}</span>{out?.[side]}</p>
              {out?.end?.nats && <p className="dim small">{out.end.nats[i].toFixed(2)} nats a token under the unsteered model, one seed</p>}
            </section>
          ))}
        </div>
      </div>
    </>
  );
}
