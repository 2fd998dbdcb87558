// Compare, Runs and Lists.
import { useEffect, useState } from "react";
import { get, send } from "../api/client";
import type { Compared, Job, LatentPage } from "../api/types";
import { useAsk } from "../ask";
import { Histogram, Lines } from "../charts/charts";
import { density, percent, short, word } from "../format";
import { useDictionary, useHouse } from "../house";
import { Field, LatentLink, Panel, Show, Stat } from "../parts/common";
import { Contexts } from "../parts/Examples";
import { JobRow } from "../parts/JobRow";
import { Indexed } from "../parts/BuildIndex";
import { useNumber, useParam } from "../route";

export function ComparePage() {
  const house = useHouse();
  const [d] = useDictionary();
  const [other, setOther] = useParam("other", d ?? "");
  const [a, setA] = useNumber("a", 0);
  const [b, setB] = useNumber("b", 1);
  const both = useAsk<Compared>(d && `${a} ${b} ${d} ${other}`, (signal) => get("/compare", { latents: `${a},${b}`, dictionary: d, other }, signal), 150);
  return (
    <>
      <h1>Two latents side by side</h1>
      <div className="row">
        <Field label="Latent"><input type="number" min={0} value={a} onChange={(e) => setA(+e.target.value)} /></Field>
        <Field label="and latent"><input type="number" min={0} value={b} onChange={(e) => setB(+e.target.value)} /></Field>
        <Field label="of" grow><select value={other} onChange={(e) => setOther(e.target.value)}>{house.dictionaries.map((x) => <option key={x.name}>{x.name}</option>)}</select></Field>
      </div>
      <Show asked={both}>
        {(c) => (c.same_site ? (
          <>
            <dl className="stats"><Stat name="decoder cosine">{c.decoder?.toFixed(3)}</Stat><Stat name="encoder cosine">{c.encoder?.toFixed(3) ?? "–"}</Stat></dl>
            <Panel title={`Nearest to ${a} in ${other === d ? "the same dictionary" : other}`} about="By the cosine of decoder directions. In another seed, a latent with a twin near 1 is one that both found.">
              <ul className="plain">{c.nearest.map(([i, v]) => <li key={i}><span className="num">{v.toFixed(3)}</span> <button className="link" onClick={() => setB(i)}>{i}</button> <span className="dim">{c.labels[i]}</span></li>)}</ul>
            </Panel>
          </>
        ) : <p className="dim">They write at different sites, so that their directions do not compare; what they fire on does.</p>)}
      </Show>
      <div className="columns"><Card d={d!} number={a} /><Card d={other} number={b} /></div>
    </>
  );
}

function Card({ d, number }: { d: string; number: number }) {
  return <Indexed d={d}>{() => <Known d={d} number={number} />}</Indexed>;
}

function Known({ d, number }: { d: string; number: number }) {
  const asked = useAsk<LatentPage>(`${d} ${number}`, (signal) => get(`/latent/${number}`, { dictionary: d }, signal), 150);
  return (
    <section className="panel">
      <h2><LatentLink id={number} d={d} /> <small className="dim">{d}</small></h2>
      <Show asked={asked}>
        {({ latent, labels }) => (
          <>
            <p>{labels[0]?.text}</p>
            <dl className="stats"><Stat name="fires on">{density(latent.density)}</Stat><Stat name="max">{short(latent.max)}</Stat></dl>
            <Histogram counts={latent.histogram} edges={latent.histogram_edges} name="activations" />
            <p>Fires on {latent.fires_on.slice(0, 5).map(([w, , , r]) => `${word(w)} (${percent(r, 0)})`).join(", ") || "nothing"}.</p>
            {latent.promoted.length > 0 && <p>Speaks for {latent.promoted.slice(0, 5).map(([w]) => word(w)).join(", ")}.</p>}
            <Contexts some={latent.groups[0]?.examples.slice(0, 8) ?? []} max={latent.max} width="8" />
          </>
        )}
      </Show>
    </section>
  );
}

interface RunRow { name: string; changed: number; state: string }

export function RunsPage() {
  const [tick, again] = useState(0);
  const [name, setName] = useParam("run", "");
  const jobs = useAsk<{ jobs: Job[] }>(`jobs ${tick}`, (signal) => get("/jobs", {}, signal));
  const runs = useAsk<{ folder: string; runs: RunRow[] }>(`runs ${tick}`, (signal) => get("/runs", {}, signal));
  const chosen = name || runs.data?.runs[0]?.name || "";
  const moving = runs.data?.runs.some((r) => r.state.startsWith("running")) || jobs.data?.jobs.some((j) => j.state === "running");
  useEffect(() => {
    if (!moving) return;
    const timer = window.setInterval(() => document.visibilityState === "visible" && again((t) => t + 1), 4000);
    return () => window.clearInterval(timer);
  }, [moving]);
  const curves = useAsk<{ columns: Record<string, (number | null)[]> }>(chosen ? `${chosen} ${tick}` : null, (signal) => get("/runs/metrics", { name: chosen }, signal));
  return (
    <>
      <h1>Runs</h1>
      <div className="row"><button onClick={() => again((t) => t + 1)}>Look again</button></div>
      <Panel title="Jobs of this server">
        <Show asked={jobs}>{(j) => (j.jobs.length ? <>{j.jobs.map((job) => <JobRow key={`${job.id} ${job.state}`} first={job} onDone={() => again((t) => t + 1)} />)}</> : <p className="dim">None yet: a dictionary without an index offers to build one.</p>)}</Show>
      </Panel>
      <Panel title="Trainings">
        <Show asked={runs}>
          {(r) => (r.runs.length ? (
            <Field label={`Under ${r.folder}`}><select value={chosen} onChange={(e) => setName(e.target.value)}>{r.runs.map((x) => <option key={x.name} value={x.name}>{x.name} ({x.state})</option>)}</select></Field>
          ) : <p className="dim">No training under {r.folder}. Start one: lensing train topk --model MODEL --text FILE --out runs/a.</p>)}
        </Show>
        {chosen && (
          <Show asked={curves}>
            {(c) => {
              const x = c.columns.step ?? c.columns.tokens ?? c.columns.rows ?? [];
              return (
                <div className="columns">
                  {Object.entries(c.columns).filter(([k]) => !["step", "rows", "tokens", "time", "seconds"].includes(k)).map(([k, ys]) => (
                    <div key={k}><h3>{k}</h3><Lines zero={false} lines={[{ name: k, points: ys.flatMap((y, i) => (y === null ? [] : [[x[i] ?? i, y] as [number, number]])) }]} x="step" y={k} /></div>
                  ))}
                </div>
              );
            }}
          </Show>
        )}
      </Panel>
    </>
  );
}

interface Item { dictionary: string | null; latent: number; note: string; label: string | null }

export function ListsPage() {
  const [tick, again] = useState(0);
  const [name, setName] = useParam("list", "");
  const lists = useAsk<{ lists: { name: string; n: number }[] }>(`lists ${tick}`, (signal) => get("/lists", {}, signal));
  const chosen = name || lists.data?.lists[0]?.name || "";
  const items = useAsk<{ items: Item[] }>(chosen ? `${chosen} ${tick}` : null, (signal) => get(`/lists/${encodeURIComponent(chosen)}`, {}, signal));
  const save = (rows: Item[]) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify({ name: chosen, items: rows }, null, 1)], { type: "application/json" }));
    link.download = `${chosen.replace(/[^\w-]+/g, "-")}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <>
      <h1>Lists</h1>
      <Show asked={lists}>
        {(l) => (l.lists.length ? <Field label="List"><select value={chosen} onChange={(e) => setName(e.target.value)}>{l.lists.map((x) => <option key={x.name} value={x.name}>{x.name} ({x.n})</option>)}</select></Field> : <p className="dim">None yet: a latent's page puts it on a list.</p>)}
      </Show>
      {chosen && (
        <Show asked={items}>
          {(i) => (
            <>
              <table className="data">
                <thead><tr><th scope="col">latent</th><th scope="col">dictionary</th><th scope="col">label</th><th scope="col"><span className="sr">actions</span></th></tr></thead>
                <tbody>{i.items.map((x) => <tr key={`${x.dictionary} ${x.latent}`}><th scope="row"><LatentLink id={x.latent} d={x.dictionary} /></th><td>{x.dictionary ?? "not served now"}</td><td>{x.label}</td><td>{x.dictionary && <button className="link" onClick={() => void send("DELETE", `/lists/${encodeURIComponent(chosen)}/${x.latent}?dictionary=${encodeURIComponent(x.dictionary!)}`).then(() => again((t) => t + 1))}>take off</button>}</td></tr>)}</tbody>
              </table>
              <div className="row">
                <button onClick={() => save(i.items)}>Save as JSON</button>
                <button onClick={() => void send("DELETE", `/lists/${encodeURIComponent(chosen)}`).then(() => { setName(""); again((t) => t + 1); })}>Remove the list</button>
              </div>
            </>
          )}
        </Show>
      )}
    </>
  );
}
