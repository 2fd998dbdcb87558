// What stays dark: lines that sum to what the dictionary leaves, each with what it does and does not show.
import { useState } from "react";
import { get } from "../api/client";
import type { Job, Ledger, Line } from "../api/types";
import { useAsk } from "../ask";
import { percent, signed, word } from "../format";
import { useDictionary } from "../house";
import { Panel, Show, Stat } from "../parts/common";
import { JobRow } from "../parts/JobRow";

function Account({ lines, whole }: { lines: Line[]; whole: Line }) {
  const most = Math.max(1e-9, ...[...lines, whole].map((l) => Math.abs(l.share)));
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={`Lines that sum to ${whole.name}`}>
    <table className="data ledger-table">
      <thead><tr><th scope="col">line</th><th scope="col" className="num">share of the variance</th><th scope="col" className="num">± standard error</th><th scope="col"><span className="sr">bar</span></th></tr></thead>
      <tbody>
        {[...lines, whole].map((l, i) => (
          <tr key={i} className={i === lines.length ? "on" : undefined}>
            <th scope="row">{i === lines.length ? `together (${l.name})` : l.name}</th>
            <td className="num">{signed(100 * l.share, 2)}%</td>
            <td className="num">{(100 * l.se).toFixed(2)}%</td>
            <td className="track-cell" aria-hidden="true"><span className={`fill ${l.share < 0 ? "cold" : i === lines.length ? "dark" : "warm"}`} style={{ width: `${(Math.abs(l.share) / most) * 100}%` }} /></td>
          </tr>
        ))}
      </tbody>
    </table>
    </div>
  );
}

export function DarkPage() {
  const [d] = useDictionary();
  const [tick, again] = useState(0);
  const asked = useAsk<{ ledger: Ledger | null; job: Job | null }>(d && `${d} ${tick}`, (signal) => get("/ledger", { dictionary: d }, signal));
  return (
    <>
      <h1>Dark matter <small className="dim">{d}</small></h1>
      <p className="lead">An account of what the dictionary leaves. Every table sums exactly to its last line; none of them is the whole of what is dark.</p>
      {!d && <p className="dim">No dictionary is served.</p>}
      <Show asked={asked}>
        {({ ledger, job }) => (ledger ? <Body ledger={ledger} /> : job && <JobRow key={job.id} first={job} onDone={() => again((t) => t + 1)} />)}
      </Show>
    </>
  );
}

function Body({ ledger }: { ledger: Ledger }) {
  const v = ledger.variance;
  return (
    <>
      <dl className="stats">
        <Stat name="vector missed (FVU)">{percent(v.fvu.share)} <small className="dim">± {(200 * v.fvu.se).toFixed(1)}%, two standard errors</small></Stat>
        <Stat name="active a token">{ledger.l0.toFixed(1)} of {ledger.d_sae.toLocaleString("en")}</Stat>
        <Stat name="text">{v.n.toLocaleString("en")} tokens of {ledger.text}</Stat>
        {Object.entries(ledger.beside).map(([name, x]) => <Stat key={name} name={`left by a ${name}`}>{percent(x)}</Stat>)}
      </dl>
      {v.warnings.map((w) => <p key={w} className="warn">{w}</p>)}
      <Panel title="What would mend it, in this order" about="Held-out: a constant; one gain; least squares on the encoder's own latents (what is known but badly coded); and the rest. The order is part of the meaning, and a line may be below zero.">
        <Account lines={v.lines} whole={v.fvu} />
      </Panel>
      <Panel title="What a linear probe tells of it" about="The part of the error that a ridge regression on the vector itself predicts, and the part that it does not. The second does not show features that are not linear: structureless vectors of the same covariance have such a part too.">
        <Account lines={v.probe} whole={v.fvu} />
      </Panel>
      {ledger.seeds && (
        <Panel title="What all seeds miss, and what each misses by chance" about={`${ledger.seeds.dictionaries.length} trainings that differ in their seed. Their mean output leaves ${percent(ledger.seeds.ensemble)}. What all miss bounds what these can never learn; a wider one may find it.`}>
          <Account lines={[ledger.seeds.systematic, ledger.seeds.run_specific]} whole={ledger.seeds.fvu} />
        </Panel>
      )}
      <Panel title="Where it lies" about={`The darkest hundredth of tokens holds ${percent(ledger.where.top, 0)} of the error (Gini ${ledger.where.gini.toFixed(2)}). Words with most of it:`}>
        <div className="scroll" tabIndex={0} role="region" aria-label="Words with most of the error">
          <table className="data small">
            <thead><tr><th scope="col">word</th><th scope="col" className="num">of the error</th><th scope="col" className="num">of the tokens</th></tr></thead>
            <tbody>{ledger.where.words.slice(0, 12).map(([w, e, n], i) => <tr key={i}><th scope="row">{word(w)}</th><td className="num">{percent(e)}</td><td className="num">{percent(n)}</td></tr>)}</tbody>
          </table>
        </div>
      </Panel>
      <Panel title="In words">{ledger.says.map((s) => <p key={s}>{s}</p>)}</Panel>
    </>
  );
}
