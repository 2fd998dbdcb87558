import { useState } from "react";
import { post } from "../api/client";
import type { Read } from "../api/types";
import { useAsk } from "../ask";
import { Bars } from "../charts/charts";
import { percent, visible, word } from "../format";
import { Choice, Show } from "../parts/common";

interface Parts { what: string; whole: number; error: number; parts: { kind: string; label: string; value: number }[] }

export function LensGrid({ data, prompt }: { data: Read; prompt: string }) {
  const { lens, tokens } = data;
  const [cell, setCell] = useState<[number, number] | null>(null);
  const [picked, pick] = useState<[number, number] | null>(null);
  const [by, setBy] = useState<"component" | "head" | "source">("component");
  const say = (layer: number, position: number, rank: number) => lens.strings[layer][0][position][rank];
  const shown = cell ?? picked ?? [lens.layers.length - 1, tokens.length - 1];
  const id = picked && lens.ids[picked[0]][0][picked[1]][0];
  const parts = useAsk<Parts>(picked && `${prompt} ${picked} ${by} ${id}`, (signal) => post("/decompose", { prompt, position: picked![1], word: id, by }, signal));
  const name = (layer: number) => (layer < 0 ? "embed" : String(layer));
  return (
    <div className="lens">
      <div className="scroll" tabIndex={0} role="region" aria-label="The lens grid: layers by tokens">
        <table className="grid">
          <thead>
            <tr><th scope="col">layer</th>{tokens.map((t, i) => <th scope="col" key={i} className={t.special ? "special" : undefined}>{visible(t.text)}</th>)}</tr>
          </thead>
          <tbody>
            {lens.layers.map((layer, i) => (
              <tr key={layer}>
                <th scope="row">{name(layer)}</th>
                {tokens.map((t, j) => {
                  const p = lens.probs[i][0][j][0];
                  return (
                    <td key={j} className={t.special ? "special" : undefined}>
                      <button
                        style={{ background: `color-mix(in srgb, var(--tint-warm) ${(p * 70).toFixed(0)}%, transparent)` }}
                        aria-pressed={picked?.[0] === i && picked?.[1] === j}
                        aria-label={`layer ${name(layer)} after ${word(t.text)}: ${word(say(i, j, 0))}, ${percent(p, 0)}`}
                        onMouseEnter={() => setCell([i, j])} onMouseLeave={() => setCell(null)} onFocus={() => setCell([i, j])} onBlur={() => setCell(null)}
                        onClick={() => pick(picked?.[0] === i && picked?.[1] === j ? null : [i, j])}
                      >
                        {word(say(i, j, 0))}
                      </button>
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <aside className="top-ten" aria-live="polite">
        <h3>Layer {name(lens.layers[shown[0]])} after “{word(tokens[shown[1]].text)}”</h3>
        <ol>
          {lens.probs[shown[0]][0][shown[1]].map((p, k) => (
            <li key={k}><span>{word(say(shown[0], shown[1], k))}</span><span className="num">{percent(p)}</span></li>
          ))}
        </ol>
        <p className="dim small">entropy {lens.entropy[shown[0]][0][shown[1]].toFixed(2)} nats, KL to the end {lens.kl[shown[0]][0][shown[1]].toFixed(2)}</p>
      </aside>
      {picked && (
        <div className="decomposition">
          <h3>What wrote “{word(say(picked[0], picked[1], 0))}” at the end of the stream after “{word(tokens[picked[1]].text)}”</h3>
          <Choice name="Parts" value={by} onChange={setBy} options={{ component: "by component", head: "by head", source: "by head and word read" }} />
          <Show asked={parts}>
            {(a) => (
              <>
                <Bars rows={[...a.parts].sort((x, y) => Math.abs(y.value) - Math.abs(x.value)).slice(0, 16).map((p, i) => ({ key: i, name: p.label, value: p.value }))} />
                <p className="dim small">{a.what}: {a.whole.toFixed(3)}; the parts sum to it within {a.error.toExponential(1)}.</p>
              </>
            )}
          </Show>
        </div>
      )}
    </div>
  );
}
