import { useState } from "react";
import { post } from "../api/client";
import type { TextRead } from "../api/types";
import { useAsk } from "../ask";
import { percent, short, visible, word } from "../format";
import { useDictionary, useHouse } from "../house";
import { Field, LatentLink, Panel, Show, Stat } from "../parts/common";
import { Tokens } from "../parts/Tokens";
import { useParam } from "../route";

export function TextPage() {
  const house = useHouse();
  const [d] = useDictionary();
  const [text, setText] = useParam("q", house.prompt + " doubtful.");
  const [by, setBy] = useParam("by", "missed");
  const [at, setAt] = useState<number | null>(null);
  const asked = useAsk<TextRead>(text.trim() && d ? `${text} ${d}` : null, (signal) => post("/text", { text, dictionary: d }, signal), 300);
  const latent = by.startsWith("latent ") ? Number(by.slice(7)) : null;
  return (
    <>
      <h1>A text, token by token</h1>
      <Field label="Text" grow><textarea rows={4} value={text} onChange={(e) => { setText(e.target.value); setAt(null); }} /></Field>
      <Show asked={asked}>
        {(a) => {
          const values = latent !== null ? a.latents.map((l) => l.find((p) => p[0] === latent)?.[1] ?? 0) : a[by as "missed" | "kl" | "loss"] ?? a.missed;
          const mean = (v: (number | null)[]) => { const some = v.filter((x): x is number => x !== null); return some.length ? some.reduce((x, y) => x + y, 0) / some.length : null; };
          return (
            <>
              <div className="row">
                <Field label="Tint by">
                  <select value={by} onChange={(e) => setBy(e.target.value)}>
                    <option value="missed">what is not reconstructed</option>
                    <option value="kl">what the splice changes (KL)</option>
                    <option value="loss">loss</option>
                    {a.fired.map((f) => <option key={f.latent} value={`latent ${f.latent}`}>latent {f.latent}: {a.labels[f.latent] ?? ""}</option>)}
                    {latent !== null && !a.fired.some((f) => f.latent === latent) && <option value={by}>{by}</option>}
                  </select>
                </Field>
                <Field label="or any latent"><input type="number" min={0} value={latent ?? ""} onChange={(e) => setBy(e.target.value === "" ? "missed" : `latent ${+e.target.value}`)} /></Field>
              </div>
              <dl className="stats">
                <Stat name="not reconstructed">{percent(mean(a.missed), 0)} <small className="dim">a token, {percent(a.corpus, 0)} on the corpus</small></Stat>
                <Stat name="KL of the splice">{short(mean(a.kl))} nats</Stat>
                <Stat name="loss">{short(mean(a.loss))} → {short(mean(a.loss_spliced))} nats</Stat>
              </dl>
              <Tokens
                tokens={a.tokens} special={a.special} values={values} tint={latent !== null ? "warm" : "dark"} max={by === "missed" ? 1 : undefined} chosen={at === null ? [] : [at]} label="The text"
                tip={(i) => (a.special[i] ? `${visible(a.tokens[i])}  counts nowhere` : `${visible(a.tokens[i])}  missed ${percent(a.missed[i], 0)}, KL ${short(a.kl[i])}, loss ${short(a.loss[i])}`)}
                onPick={(i) => setAt(i === at ? null : i)}
              />
              {at === null ? <p className="dim small">Choose a token for its latents and for the words that go missing there.</p> : (
                <div className="columns">
                  <Panel title={`Latents on “${word(a.tokens[at])}”`}>
                    <ul className="plain">{a.latents[at].slice(0, 16).map(([l, v]) => <li key={l}><span className="num">{short(v)}</span> <LatentLink id={l} d={d} label={a.labels[l]} /></li>)}</ul>
                  </Panel>
                  <Panel title="Next words that go missing there" about="Those whose probability falls most when the model runs on the dictionary's output.">
                    <table className="data"><thead><tr><th scope="col">word</th><th scope="col">model</th><th scope="col">spliced</th></tr></thead>
                      <tbody>{a.lost[at]?.map(([w, b, c], i) => <tr key={i}><th scope="row">{word(w)}</th><td className="num">{percent(b)}</td><td className="num">{percent(c)}</td></tr>)}</tbody></table>
                  </Panel>
                </div>
              )}
            </>
          );
        }}
      </Show>
    </>
  );
}
