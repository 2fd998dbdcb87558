// The strength slider: the next word changes as it is dragged, its cost and its ghosts beside it.
import { useMemo } from "react";
import { post } from "../api/client";
import type { Dose, Slide } from "../api/types";
import { useAsk, useCalm } from "../ask";
import { Lines } from "../charts/charts";
import { percent, short, word } from "../format";
import { Field, Show, Verdict } from "./common";

const STEPS = [0, 0.25, 0.5, 1, 2, 4, 8, 16];
// The range input moves in log2(1 + strength), so that the calm end is not a hair's breadth wide.
const toStrength = (v: number) => Math.round((2 ** v - 1) * 100) / 100;
const fromStrength = (s: number) => Math.log2(1 + s);
const TOP = fromStrength(16);

export function StrengthSlider({ prompt, latent, d, strength, onStrength, cost = true }: { prompt: string; latent: number; d: string | null; strength: number; onStrength: (s: number) => void; cost?: boolean }) {
  const body = { prompt, latent, dictionary: d };
  const base = JSON.stringify(body);
  const curves = useAsk<Slide>(base, (signal) => post("/slide", { ...body, strengths: STEPS }, signal));
  const now = useAsk<Slide>(`${base} ${strength}`, (signal) => post("/slide", { ...body, strengths: [0, strength], beside: false }, signal), 30);
  const calm = useCalm(base, 600);
  const dose = useAsk<Dose>(cost && calm === base ? base : null, (signal) => post("/dose", { ...body, strengths: STEPS }, signal));
  const nearest = STEPS.reduce((a, b) => (Math.abs(fromStrength(b) - fromStrength(strength)) < Math.abs(fromStrength(a) - fromStrength(strength)) ? b : a));
  const said = dose.data?.directions[0].doses.find((x) => x.strength === nearest);
  return (
    <div className="slider">
      <Field label="Strength, in units of the latent's largest activation" grow>
        <input
          type="range" min={0} max={TOP} step={0.01} value={fromStrength(strength)} list="strengths" aria-valuetext={`strength ${strength}`}
          onChange={(e) => onStrength(toStrength(+e.target.value))}
        />
      </Field>
      <output className="strength">
        ×{short(strength)} {now.data && <small className="dim">{percent(now.data.directions[0].notches[1].share_of_norm, 0)} of the vector's length</small>}
        {said && <Verdict cost={said.coherence_cost} text={said.verdict} />}
        {cost && dose.busy && <small className="dim">measuring what it costs …</small>}
      </output>
      <Show asked={now}>
        {(data) => <NextWords before={data.directions[0].notches[0]} after={data.directions[0].notches[1]} />}
      </Show>
      {said && (
        <blockquote className={`continuation ${said.verdict}`}>
          <span className="dim">{prompt}</span>
          {said.text} <footer>at strength {nearest}, temperature 1{said.se != null && `; cost ±${said.se.toFixed(2)} over 8 seeds`}{said.impossible != null && `; ${percent(said.impossible, 0)} of its words impossible in this world`}</footer>
        </blockquote>
      )}
      <div className="columns">
        <Show asked={curves}>{(data) => <Ghosts data={data} mark={strength} />}</Show>
        {dose.data && (
          <div>
            <h3>What it costs</h3>
            <Lines
              lines={dose.data.directions.map((x) => ({ name: x.name, points: x.doses.map((p) => [p.strength, p.coherence_cost]) }))}
              x="strength" y="nats a token over the unsteered model's own text" logX mark={strength}
            />
            <p className="dim small">Strained from 1, babble from 3 nats a token.</p>
          </div>
        )}
      </div>
    </div>
  );
}

function Ghosts({ data, mark }: { data: Slide; mark: number }) {
  const names = Object.keys(data.watch);
  const name = names[0];
  const lines = useMemo(
    () => data.directions.map((x) => ({ name: x.name, points: x.notches.map((n) => [n.strength, n.watched[name]] as [number, number]) })),
    [data, name],
  );
  return (
    <div>
      <h3>Next-word probability of {name}</h3>
      <Lines lines={lines} x="strength" y="probability" logX mark={mark} />
      <p className="dim small">
        {data.watch[name].slice(0, 8).join(", ")}. All directions have the latent's own length at each strength.
        {data.left_out.length > 0 && ` Left out: ${data.left_out.join("; ")}.`}
      </p>
    </div>
  );
}

export function NextWords({ before, after }: { before: Slide["directions"][0]["notches"][0]; after: Slide["directions"][0]["notches"][0] }) {
  const was = new Map(before.table.map((g) => [g.id, g.p]));
  return (
    <table className="words">
      <caption>The next word</caption>
      <thead>
        <tr><th scope="col">word</th><th scope="col">steered</th><th scope="col"><span className="sr">bar</span></th><th scope="col">before</th></tr>
      </thead>
      <tbody>
        {after.table.slice(0, 8).map((g) => (
          <tr key={g.id}>
            <th scope="row">{word(g.word)}</th>
            <td className="num">{percent(g.p)}</td>
            <td className="bar"><i style={{ width: `${g.p * 100}%` }} /></td>
            <td className="num dim">{was.has(g.id) ? percent(was.get(g.id)) : "<" + percent(before.table.at(-1)?.p ?? 0)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
