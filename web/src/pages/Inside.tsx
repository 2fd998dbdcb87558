// Pages about the network itself: attention heads, patching, single units.
import { useEffect, useMemo, useRef, useState } from "react";
import { get, post } from "../api/client";
import type { Patched, Unit } from "../api/types";
import { useAsk } from "../ask";
import { Heat, Histogram } from "../charts/charts";
import { percent, short, visible, word } from "../format";
import { useHouse } from "../house";
import { Choice, Field, Panel, Show, Stat } from "../parts/common";
import { Contexts } from "../parts/Examples";
import { Tokens } from "../parts/Tokens";
import { useNumber, useParam } from "../route";

interface Attention { tokens: string[]; pattern: number[][][] }
const KINDS = ["induction", "previous", "duplicate", "current", "first"] as const;
type Scores = { layers: number[]; texts: number; length: number } & Record<(typeof KINDS)[number], { scores: number[][]; se: number[][] }>;

function Thumb({ pattern, name }: { pattern: number[][]; name: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const n = pattern.length, image = context.createImageData(n, n);
    pattern.forEach((row, i) => row.forEach((v, j) => image.data.set([214, 96, 26, Math.sqrt(v) * 255], (i * n + j) * 4)));
    context.putImageData(image, 0, 0);
  }, [pattern]);
  return <canvas ref={canvas} className="vector" width={pattern.length} height={pattern.length} style={{ width: 84, height: 84 }} role="img" aria-label={name} />;
}

export function HeadsPage() {
  const house = useHouse();
  const [text, setText] = useParam("q", house.prompt);
  const [layer, setLayer] = useNumber("layer", 0);
  const [head, setHead] = useNumber("head", 0);
  const [to, setTo] = useState<"source" | "destination">("source");
  const [at, setAt] = useState<number | null>(null);
  const [locked, lock] = useState<number | null>(null);
  const [kind, setKind] = useParam("kind", "induction");
  const asked = useAsk<Attention>(text.trim() ? `${text} ${layer}` : null, (signal) => post("/attention", { text, layer }, signal), 200);
  const scores = useAsk<Scores>("scores", (signal) => get("/heads", {}, signal));
  const point = locked ?? at;
  return (
    <>
      <h1>Attention heads</h1>
      <div className="row">
        <Field label="Text" grow><input value={text} onChange={(e) => { setText(e.target.value); lock(null); }} /></Field>
        <Field label="Layer"><select value={layer} onChange={(e) => setLayer(+e.target.value)}>{Array.from({ length: house.model.n_layers }, (_, i) => <option key={i}>{i}</option>)}</select></Field>
      </div>
      <Show asked={asked}>
        {(a) => {
          const h = Math.min(head, a.pattern.length - 1);
          const p = a.pattern[h];
          const values = point === null ? a.tokens.map(() => 0) : to === "source" ? a.tokens.map((_, j) => p[point]?.[j] ?? 0) : a.tokens.map((_, i) => p[i]?.[point] ?? 0);
          return (
            <>
              <div className="thumbs" role="group" aria-label="Heads of this layer">
                {a.pattern.map((pattern, i) => (
                  <button key={i} aria-pressed={i === h} onClick={() => setHead(i)}><Thumb pattern={pattern} name={`Pattern of head ${layer}.${i}`} /><span>{layer}.{i}</span></button>
                ))}
              </div>
              <Panel title={`Head ${layer}.${h}`} about="Point at a token, or choose it to hold it, for what it attends to, or for what attends to it.">
                <Choice name="Direction" value={to} options={{ source: "what this token attends to", destination: "what attends to this token" }} onChange={setTo} />
                <div onMouseOver={(e) => { const i = (e.target as HTMLElement).dataset.at; if (i !== undefined) setAt(+i); }} onMouseLeave={() => setAt(null)} onFocus={(e) => { const i = (e.target as HTMLElement).dataset.at; if (i !== undefined) setAt(+i); }}>
                  <Tokens tokens={a.tokens} values={values} max={1} chosen={point === null ? [] : [point]} label="Tokens" onPick={(i) => lock(locked === i ? null : i)} tip={(i) => `${visible(a.tokens[i])}  ${percent(values[i])}`} />
                </div>
                {a.tokens.length <= 40 && <Heat rows={a.tokens.map((t, i) => `${i} ${word(t)}`)} columns={a.tokens.map(word)} values={p.map((row) => [...row, ...Array(a.tokens.length - row.length).fill(null)])} max={1} corner="from ↓ to →" onPick={(i) => lock(i)} />}
              </Panel>
            </>
          );
        }}
      </Show>
      <Panel title="What each head looks at, on random words said twice" about="Mean attention by kind, layers by heads: to the word after the same word before (induction), the word before, the same word before, itself, the first token.">
        <Choice name="Kind" value={kind as (typeof KINDS)[number]} options={Object.fromEntries(KINDS.map((k) => [k, k])) as Record<(typeof KINDS)[number], string>} onChange={setKind} />
        <Show asked={scores} wait="Scoring the heads">
          {(s) => {
            const one = s[kind as (typeof KINDS)[number]] ?? s.induction;
            return <Heat rows={s.layers.map(String)} columns={one.scores[0].map((_, i) => String(i))} values={one.scores} max={1} corner="layer ↓ head →" onPick={(i, j) => { setLayer(s.layers[i]); setHead(j); }} />;
          }}
        </Show>
      </Panel>
    </>
  );
}

export function PatchPage() {
  const house = useHouse();
  const [clean, setClean] = useParam("clean", house.prompt);
  const [corrupt, setCorrupt] = useParam("corrupt", house.prompt.replace("Almanac", "river"));
  const [right, setRight] = useParam("right", "");
  const [wrong, setWrong] = useParam("wrong", "");
  const [site, setSite] = useParam("site", "resid_pre");
  const [mode, setMode] = useParam("mode", "denoise");
  const [asks, setAsks] = useState(() => JSON.stringify({ clean, corrupt, right, wrong, site, mode }));
  const asked = useAsk<Patched>(asks, (signal) => post("/patch", JSON.parse(asks), signal));
  return (
    <>
      <h1>Patch</h1>
      <p className="lead">Run one sentence with one value of another in it, and see how much of the way between their answers it brings.</p>
      <form className="panel" onSubmit={(e) => { e.preventDefault(); setAsks(JSON.stringify({ clean, corrupt, right, wrong, site, mode })); }}>
        <div className="row">
          <Field label="Clean sentence" grow><input value={clean} onChange={(e) => setClean(e.target.value)} /></Field>
          <Field label="Corrupt sentence, as many tokens" grow><input value={corrupt} onChange={(e) => setCorrupt(e.target.value)} /></Field>
        </div>
        <div className="row">
          <Field label="Its word (or the likeliest)"><input value={right} onChange={(e) => setRight(e.target.value)} /></Field>
          <Field label="The other's word"><input value={wrong} onChange={(e) => setWrong(e.target.value)} /></Field>
          <Field label="What is patched"><select value={site} onChange={(e) => setSite(e.target.value)}>{["resid_pre", "attn_out", "mlp_out", "attn_z"].map((s) => <option key={s}>{s}</option>)}</select></Field>
          <Field label="Way"><select value={mode} onChange={(e) => setMode(e.target.value)}><option value="denoise">clean into corrupt</option><option value="noise">corrupt into clean</option></select></Field>
          <button className="main" type="submit">Patch</button>
        </div>
      </form>
      <Show asked={asked} wait="Patching every place">
        {(p) => (
          <Panel title={`${p.metric}${p.words.length === 2 ? `: ${word(p.words[0])} less ${word(p.words[1])}` : p.words.length ? `: ${word(p.words[0])}` : ""}`} about={`Clean ${short(p.clean)}, corrupt ${short(p.corrupt)}. 1 is the whole way from the one to the other, by one place alone.`}>
            <Heat rows={p.rows} columns={p.columns.map((c, i) => `${word(c)}${p.other_tokens[i] && p.other_tokens[i] !== p.tokens[i] && p.columns.length === p.tokens.length ? ` / ${word(p.other_tokens[i])}` : ""}`)} values={p.grid} max={1} corner="layer ↓" />
            <h3>Strongest places</h3>
            <ul className="plain">{p.top.slice(0, 6).map((t) => <li key={t.node}><span className="num">{t.effect.toFixed(2)}</span> {t.node}</li>)}</ul>
          </Panel>
        )}
      </Show>
    </>
  );
}

export function UnitPage() {
  const house = useHouse();
  const [site, setSite] = useParam("site", `mlp_post.${house.model.n_layers - 1}`);
  const [number, setNumber] = useNumber("number", 0);
  const sites = useMemo(() => [...house.model.neurons, ...Array.from({ length: house.model.n_layers }, (_, i) => `resid_post.${i}`), ...Array.from({ length: house.model.n_layers }, (_, i) => `attn_z.${i}`)], [house]);
  const asked = useAsk<Unit>(`${site} ${number}`, (signal) => get("/unit", { site, number }, signal), 200);
  return (
    <>
      <h1>Unit {number} <small className="dim">of {site}</small></h1>
      <p className="lead">A neuron, a channel of a head, or a dimension of the stream, looked at as a latent is: by both signs.</p>
      <div className="row">
        <Field label="Site"><select value={site} onChange={(e) => setSite(e.target.value)}>{(sites.includes(site) ? sites : [site, ...sites]).map((s) => <option key={s}>{s}</option>)}</select></Field>
        <Field label="Number"><input type="number" min={0} value={number} onChange={(e) => setNumber(+e.target.value)} /></Field>
      </div>
      <Show asked={asked} wait="Looking through the text">
        {(u) => (
          <>
            <dl className="stats">
              <Stat name="mean">{short(u.mean)}</Stat><Stat name="standard deviation">{short(u.std)}</Stat>
              <Stat name="range">{short(u.min)} to {short(u.max)}</Stat>
              <Stat name="kurtosis" title="3 for a bell curve; large where it is mostly silent">{short(u.kurtosis)}</Stat>
              <Stat name="text">{u.tokens.toLocaleString("en")} tokens of {u.text}</Stat>
            </dl>
            <Histogram counts={u.histogram} edges={u.edges} name="activations" />
            <div className="columns">
              {([["top", "Strongest above zero"], ["bottom", "Strongest below zero"]] as const).map(([side, title]) => (
                <Panel key={side} title={title} about={u[`${side}_words`].length ? `Words of its top 1%: ${u[`${side}_words`].slice(0, 6).map((w) => `${word(w[0])} ${percent(w[3], 0)}`).join(", ")}` : "Never on this side."}>
                  <Contexts some={u[side]} max={Math.max(u.max, -u.min)} width="24" tint="both" />
                </Panel>
              ))}
            </div>
          </>
        )}
      </Show>
    </>
  );
}
