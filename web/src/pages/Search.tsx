import { useState } from "react";
import { get, post } from "../api/client";
import type { Inference, Job, Label } from "../api/types";
import { useAsk } from "../ask";
import { density, percent, short, visible, word } from "../format";
import { useDictionary, useHouse } from "../house";
import { Choice, Field, LatentLink, Show } from "../parts/common";
import { JobRow } from "../parts/JobRow";
import { Tokens } from "../parts/Tokens";
import { useParam } from "../route";

type By = "label" | "meaning" | "word" | "text" | "example";

export function SearchPage() {
  const house = useHouse();
  const [by, setBy] = useParam("by", "label");
  const kinds = { label: "label", ...(house.embedding ? { meaning: "meaning" } : {}), word: "word", text: "what fires on a text", example: "examples" };
  return (
    <>
      <h1>Search</h1>
      <Choice name="Search by" value={by as By} options={kinds as Record<By, string>} onChange={setBy} />
      {by === "label" && <ByLabel />}
      {by === "meaning" && <ByMeaning />}
      {by === "word" && <ByWord />}
      {by === "text" && <ByText />}
      {by === "example" && <ByExample />}
    </>
  );
}

function ByLabel() {
  const [d] = useDictionary();
  const [q, setQ] = useParam("q", "");
  const asked = useAsk<{ hits: Label[] & { latent: number }[] }>(q.trim() && d ? `${q} ${d}` : null, (signal) => get("/search/labels", { q, dictionary: d }, signal), 150);
  return (
    <>
      <Field label="Words of the label, or their beginnings" grow><input type="search" value={q} onChange={(e) => setQ(e.target.value)} autoFocus /></Field>
      <Show asked={asked}>
        {(a) => (
          <>
            <p role="status">{a.hits.length} latents</p>
            <ul className="plain hits">{a.hits.map((h) => <li key={h.id}><LatentLink id={(h as unknown as { latent: number }).latent} d={d} label={h.text} /> <small className="dim">{h.method}</small></li>)}</ul>
          </>
        )}
      </Show>
    </>
  );
}

function ByMeaning() {
  const house = useHouse();
  const [d] = useDictionary();
  const [q, setQ] = useParam("q", "");
  const [tick, again] = useState(0);
  const asked = useAsk<{ hits: { latent: number; cosine: number; label: string | null }[] | null; job: Job | null }>(q.trim() && d ? `${q} ${d} ${tick}` : null, (signal) => get("/search/meaning", { q, dictionary: d }, signal), 300);
  return (
    <>
      <Field label="What the label should mean" grow><input type="search" value={q} onChange={(e) => setQ(e.target.value)} autoFocus /></Field>
      <Show asked={asked}>
        {(a) => (a.job ? <JobRow key={a.job.id} first={a.job} onDone={() => again((t) => t + 1)} /> : (
          <ul className="plain hits">{a.hits?.map((h) => <li key={h.latent}><span className="num">{h.cosine.toFixed(2)}</span> <LatentLink id={h.latent} d={d} label={h.label} /></li>)}</ul>
        ))}
      </Show>
      <p className="dim small">Cosines of {house.embedding}, exact, on this machine.</p>
    </>
  );
}

function ByWord() {
  const [d] = useDictionary();
  const [q, setQ] = useParam("q", "");
  const asked = useAsk<{ hits: { latent: number; how: string; word: string; value: number; label: string | null }[] }>(q.trim() && d ? `${q} ${d}` : null, (signal) => get("/search/words", { q, dictionary: d }, signal), 150);
  return (
    <>
      <Field label="A word of the vocabulary" grow><input type="search" value={q} onChange={(e) => setQ(e.target.value)} autoFocus /></Field>
      <Show asked={asked}>
        {(a) => (
          <div className="columns three">
            {["fires on", "promotes", "suppresses"].map((how) => (
              <section key={how}>
                <h2>{how} “{q}”</h2>
                <ul className="plain hits">{a.hits.filter((h) => h.how === how).slice(0, 20).map((h, i) => <li key={i}><span className="num">{how === "fires on" ? percent(h.value, 0) : h.value.toFixed(2)}</span> <LatentLink id={h.latent} d={d} label={h.label} /></li>)}</ul>
              </section>
            ))}
          </div>
        )}
      </Show>
    </>
  );
}

function ByText() {
  const house = useHouse();
  const [d] = useDictionary();
  const [q, setQ] = useParam("q", house.prompt);
  const [order, setOrder] = useParam("order", "max");
  const [rarest, setRarest] = useParam("dense", "1");
  const [at, setAt] = useParam("at", "");
  const asked = useAsk<Inference>(q.trim() && d ? `${q} ${d}` : null, (signal) => post("/search/inference", { text: q, dictionary: d, n: 300 }, signal), 250);
  return (
    <>
      <Field label="A text" grow><textarea rows={2} value={q} onChange={(e) => setQ(e.target.value)} /></Field>
      <div className="row">
        <Choice name="Order" value={order as "max" | "share" | "total"} options={{ max: "largest activation", share: "share of its own maximum", total: "sum over the text" }} onChange={setOrder} />
        <Field label={`At most as dense as ${percent(Number(rarest), 1)}`}><input type="range" min={-4} max={0} step={0.1} value={Math.log10(Number(rarest))} onChange={(e) => setRarest(String(10 ** +e.target.value))} /></Field>
      </div>
      <Show asked={asked}>
        {(a) => {
          const here = at === "" ? null : new Map(a.latents[+at] ?? []);
          const hits = a.hits
            .filter((h) => (h.density ?? 0) <= Number(rarest) && (!here || here.has(h.latent)))
            .sort((x, y) => (here ? (here.get(y.latent) ?? 0) - (here.get(x.latent) ?? 0) : ((y[order as "max"] ?? 0) - (x[order as "max"] ?? 0))));
          return (
            <>
              <p className="dim small">Choose a token to keep the latents that fire on it.</p>
              <Tokens
                tokens={a.tokens} special={a.special} values={a.latents.map((l) => l.length && l[0][1])} chosen={at === "" ? [] : [+at]} label="Tokens of the text"
                tip={(i) => `${visible(a.tokens[i])}  ${a.latents[i].slice(0, 3).map(([l, v]) => `${l} (${short(v)})`).join("  ")}`}
                onPick={(i) => setAt(at === String(i) ? "" : String(i))}
              />
              <p role="status">{hits.length} latents{here && ` on “${word(a.tokens[+at])}”`}</p>
              <table className="data">
                <thead><tr><th scope="col">latent</th><th scope="col" className="num">max</th><th scope="col" className="num">share</th><th scope="col" className="num">sum</th><th scope="col">on</th><th scope="col" className="num">density</th></tr></thead>
                <tbody>{hits.slice(0, 60).map((h) => <tr key={h.latent}><th scope="row"><LatentLink id={h.latent} d={d} label={h.label} /></th><td className="num">{short(h.max)}</td><td className="num">{percent(h.share, 0)}</td><td className="num">{short(h.total)}</td><td>{word(a.tokens[h.at])}</td><td className="num">{h.density == null ? "–" : density(h.density)}</td></tr>)}</tbody>
              </table>
            </>
          );
        }}
      </Show>
    </>
  );
}

interface Mark { text: string; marked: number[] }

function ByExample() {
  const house = useHouse();
  const [d] = useDictionary();
  const [rows, setRows] = useState<Mark[]>([{ text: house.prompt, marked: [] }]);
  const usable = rows.filter((r) => r.text.trim());
  const some = usable.some((r) => r.marked.length);
  const asked = useAsk<{ hits: { latent: number; auroc: number; average_precision: number; n: number; label: string | null }[] }>(
    some && d ? JSON.stringify([usable, d]) : null, (signal) => post("/search/examples", { examples: usable, dictionary: d }, signal), 250);
  const change = (i: number, row: Mark) => setRows(rows.map((r, j) => (j === i ? row : r)));
  return (
    <>
      <p className="about">Write texts and mark the tokens on which the latent that you look for should fire; it should be silent on all others.</p>
      {rows.map((row, i) => <MarkRow key={i} n={i + 1} row={row} change={(r) => change(i, r)} />)}
      <button onClick={() => setRows([...rows, { text: "", marked: [] }])}>Another text</button>
      {!some && <p className="dim">Mark at least one token.</p>}
      {some && (
        <Show asked={asked}>
          {(a) => (
            <table className="data">
              <thead><tr><th scope="col">latent</th><th scope="col" className="num">AUROC</th><th scope="col" className="num">average precision</th><th scope="col" className="num">marked tokens it fires on</th></tr></thead>
              <tbody>{a.hits.slice(0, 30).map((h) => <tr key={h.latent}><th scope="row"><LatentLink id={h.latent} d={d} label={h.label} /></th><td className="num">{h.auroc.toFixed(3)}</td><td className="num">{h.average_precision.toFixed(3)}</td><td className="num">{h.n}</td></tr>)}</tbody>
            </table>
          )}
        </Show>
      )}
    </>
  );
}

function MarkRow({ n, row, change }: { n: number; row: Mark; change: (row: Mark) => void }) {
  const [d] = useDictionary();
  const asked = useAsk<{ tokens: string[]; special: boolean[] }>(row.text.trim() ? `${row.text} ${d}` : null, (signal) => post("/activations", { text: row.text, latents: [0], dictionary: d }, signal), 200);
  return (
    <div className="mark-row">
      <Field label={`Text ${n}`} grow><input value={row.text} onChange={(e) => change({ text: e.target.value, marked: [] })} /></Field>
      <Show asked={asked}>
        {(a) => <Tokens tokens={a.tokens} special={a.special} chosen={row.marked} label={`Tokens of text ${n}`} values={a.tokens.map((_, i) => (row.marked.includes(i) ? 1 : 0))} max={1} tip={(i) => (a.special[i] ? "counts nowhere" : row.marked.includes(i) ? "should fire" : "should not fire")} onPick={(i) => !a.special[i] && change({ ...row, marked: row.marked.includes(i) ? row.marked.filter((x) => x !== i) : [...row.marked, i] })} />}
      </Show>
    </div>
  );
}
