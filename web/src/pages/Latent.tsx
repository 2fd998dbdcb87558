import { useEffect, useState } from "react";
import { get, post, send } from "../api/client";
import type { LatentPage as Data } from "../api/types";
import { useAsk } from "../ask";
import { Histogram } from "../charts/charts";
import { density, percent, short, visible, word } from "../format";
import { useDictionary, useHouse } from "../house";
import { Field, LatentLink, Link, Panel, Show, Stat } from "../parts/common";
import { Indexed } from "../parts/BuildIndex";
import { Groups } from "../parts/Examples";
import { StrengthSlider } from "../parts/Slider";
import { Tokens } from "../parts/Tokens";
import { go, latentHref, useParam } from "../route";

const NEAR: Record<string, string> = {
  correlation: "fires as strongly (correlation)", jaccard: "fires on the same words (Jaccard)",
  conditional: "fires when it fires (share)", decoder: "points the same way (decoder cosine)", encoder: "looks the same way (encoder cosine)",
};

export function LatentPage({ number }: { number: number }) {
  const [d] = useDictionary();
  const [total, setTotal] = useState(Infinity);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if ((event.target as HTMLElement).closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "j" && number + 1 < total) go(latentHref(number + 1, d));
      if (event.key === "k" && number > 0) go(latentHref(number - 1, d));
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [number, d, total]);
  return (
    <>
      <nav className="crumbs" aria-label="Latents">
        {number > 0 && <Link to={latentHref(number - 1, d)} className="button" title="k">← {number - 1}</Link>}
        <form onSubmit={(e) => { e.preventDefault(); go(latentHref(Number(new FormData(e.currentTarget).get("n")), d)); }}>
          <Field label="Latent"><input key={number} name="n" type="number" min={0} max={Number.isFinite(total) ? total - 1 : undefined} defaultValue={number} /></Field>
        </form>
        {number + 1 < total && <Link to={latentHref(number + 1, d)} className="button" title="j">{number + 1} →</Link>}
        <Link to={`/compare?a=${number}&d=${encodeURIComponent(d ?? "")}`} className="button">Compare</Link>
      </nav>
      <h1>Latent {number} <small className="dim">{d}</small></h1>
      <Indexed d={d}>{(facts) => <Known number={number} d={d!} total={facts.latents} onTotal={setTotal} />}</Indexed>
    </>
  );
}

function Known({ number, d, total, onTotal }: { number: number; d: string; total: number; onTotal: (n: number) => void }) {
  const [version, again] = useState(0);
  useEffect(() => onTotal(total), [total, onTotal]);
  const asked = useAsk<Data>(`${number} ${d} ${version}`, (signal) => get(`/latent/${number}`, { dictionary: d }, signal));
  return <Show asked={asked}>{(data) => <Body key={`${data.latent.latent} ${data.dictionary}`} data={data} d={d} again={() => again((v) => v + 1)} />}</Show>;
}

function Body({ data, d, again }: { data: Data; d: string | null; again: () => void }) {
  const { latent } = data;
  const house = useHouse();
  const [strength, setStrength] = useState(2);
  const [prompt, setPrompt] = useParam("prompt", house.prompt);
  return (
    <div className="latent-page">
      <div className="side">
        <Labels data={data} d={d} again={again} />
        <Panel title="Fires on">
          {latent.fires_on.length === 0 && <p className="dim">{latent.count ? "The dashboards that this was made of do not say." : "It never fires on this text."}</p>}
          <table className="data small">
            <thead><tr><th scope="col">word</th><th scope="col" className="num">places</th><th scope="col" className="num" title="of the word's places, the share on which it fires">precision</th><th scope="col" className="num" title="of its firing, the share that is on this word">recall</th></tr></thead>
            <tbody>{latent.fires_on.map(([w, n, p, r], i) => <tr key={i}><th scope="row">{word(w)}</th><td className="num">{n}</td><td className="num">{percent(p, 0)}</td><td className="num">{percent(r, 0)}</td></tr>)}</tbody>
          </table>
        </Panel>
        {Object.entries(latent.near).map(([kind, some]) => some.length > 0 && (
          <details key={kind} className="panel" open={kind === "correlation" || kind === "decoder"}>
            <summary>{NEAR[kind]}</summary>
            <ul className="plain">{some.slice(0, 8).map(([i, v]) => <li key={i}><span className="num">{v.toFixed(2)}</span> <LatentLink id={i} d={d} label={data.near_labels[i]} /></li>)}</ul>
          </details>
        ))}
        <Twins number={latent.latent} d={d} />
        <Notes data={data} d={d} again={again} />
      </div>
      <div className="main-side">
        <dl className="stats">
          <Stat name="fires on">{density(latent.density)} <small className="dim">of {data.text.rows.toLocaleString("en")} tokens</small></Stat>
          <Stat name="max" title="largest activation on this text">{short(latent.max)}</Stat>
          <Stat name="mean" title="where it fires">{short(latent.mean)}</Stat>
          <Stat name="max on corpus" title="the unit of steering strengths">{short(data.max_on_corpus)}</Stat>
          {data.known && <Stat name="agrees with the text's labels" title={`F1 ${data.known.f1}, AUROC ${data.known.auroc} on documents not used to choose it, ${data.known.n} positives`}>{data.known.concept} <small className="dim">F1 {data.known.f1.toFixed(2)}</small></Stat>}
        </dl>
        {latent.count > 0 && latent.count < 10 && <p className="warn">Ultra-rare: it fires on {latent.count} tokens only, so every number here is uncertain.</p>}
        <div className="columns">
          <Histogram counts={latent.histogram} edges={latent.histogram_edges} name="activations" />
          {latent.logit_histogram_edges && <Histogram counts={latent.logit_histogram} edges={latent.logit_histogram_edges} name="logits of all words" tone="cold" />}
        </div>
        {latent.promoted.length > 0 && (
          <div className="columns logits">
            <Logits title="Negative logits" rows={latent.suppressed} tone="cold" />
            <Logits title="Positive logits" rows={latent.promoted} tone="warm" />
          </div>
        )}
        <Panel title="Test it on a text"><TestBox latent={latent.latent} d={d} max={latent.max} /></Panel>
        <Panel title={`Max-activating examples, and a few of each ${data.imported ? "bin" : "quantile"}`}><Groups groups={latent.groups} max={latent.max} bins={data.imported} /></Panel>
        <Panel title="Steer">
          <Field label="After this text" grow><input value={prompt} onChange={(e) => setPrompt(e.target.value)} /></Field>
          {data.max_on_corpus ? <StrengthSlider prompt={prompt} latent={latent.latent} d={d} strength={strength} onStrength={setStrength} cost={false} /> : <p className="dim">It was silent on the dictionary's corpus, so that its strength has no unit.</p>}
          <p><Link className="button" to={`/steer?l=${latent.latent}:2&d=${encodeURIComponent(d ?? "")}&prompt=${encodeURIComponent(prompt)}`}>Continue whole texts</Link></p>
        </Panel>
      </div>
    </div>
  );
}

interface Twin { dictionary: string; latent: number; cosine: number; label: string | null }

function Twins({ number, d }: { number: number; d: string | null }) {
  const asked = useAsk<{ twins: Twin[] }>(`${number} ${d}`, (signal) => get(`/latent/${number}/twins`, { dictionary: d }, signal));
  if (!asked.data?.twins.length) return null;
  return (
    <details className="panel" open>
      <summary>in other seeds (decoder cosine)</summary>
      <ul className="plain">
        {asked.data.twins.map((t) => (
          <li key={t.dictionary}><span className="num">{t.cosine.toFixed(2)}</span> <LatentLink id={t.latent} d={t.dictionary} label={t.label} /> <Link to={`/compare?a=${number}&b=${t.latent}&d=${encodeURIComponent(d ?? "")}&other=${encodeURIComponent(t.dictionary)}`}>beside</Link></li>
        ))}
      </ul>
      <p className="dim small">Near 1: the other training found it too. Low: it may be an accident of this one.</p>
    </details>
  );
}

function Logits({ title, rows, tone }: { title: string; rows: [string, number][]; tone: string }) {
  const most = Math.max(1e-9, ...rows.map((r) => Math.abs(r[1])));
  return (
    <table className={`data small ${tone}`}>
      <caption>{title}</caption>
      <thead className="sr"><tr><th scope="col">word</th><th scope="col">logit</th></tr></thead>
      <tbody>{rows.map(([w, v], i) => <tr key={i}><th scope="row" style={{ background: `color-mix(in srgb, var(--tint-${tone}) ${((Math.abs(v) / most) * 35).toFixed(0)}%, transparent)` }}>{visible(w)}</th><td className="num">{v.toFixed(2)}</td></tr>)}</tbody>
    </table>
  );
}

export function TestBox({ latent, d, max }: { latent: number; d: string | null; max: number }) {
  const house = useHouse();
  const [text, setText] = useState(house.prompt);
  const asked = useAsk<{ tokens: string[]; special: boolean[]; values: number[][] }>(text.trim() ? `${text} ${latent} ${d}` : null, (signal) => post("/activations", { text, latents: [latent], dictionary: d }, signal), 200);
  return (
    <>
      <Field label="Your own text" grow><textarea rows={2} value={text} onChange={(e) => setText(e.target.value)} /></Field>
      <Show asked={asked}>{(a) => <Tokens tokens={a.tokens} values={a.values[0]} special={a.special} max={Math.max(max, ...a.values[0])} />}</Show>
    </>
  );
}

function Labels({ data, d, again }: { data: Data; d: string | null; again: () => void }) {
  const [text, setText] = useState("");
  const [error, setError] = useState<string | null>(null);
  const done = (work: Promise<unknown>) => work.then(() => { setText(""); setError(null); again(); }, (e: Error) => setError(e.message));
  return (
    <Panel title="What it is about">
      <ul className="labels">
        {data.labels.map((l) => (
          <li key={l.id}>
            {l.text} <small className="dim">{l.method === "person" ? "by a person" : l.method}{l.by && `, ${l.by}`}{l.score != null && `, score ${l.score.toFixed(2)}${l.n ? ` on ${l.n}` : ""}`}</small>
            {l.method === "person" && <button className="link" aria-label={`Remove the label ${l.text}`} onClick={() => done(send("DELETE", `/labels/${l.id}`))}>remove</button>}
          </li>
        ))}
      </ul>
      <form className="row" onSubmit={(e) => { e.preventDefault(); if (text.trim()) done(post(`/latent/${data.latent.latent}/labels`, { text, dictionary: d })); }}>
        <Field label="Your label" grow><input value={text} maxLength={500} onChange={(e) => setText(e.target.value)} /></Field>
        <button type="submit">Add</button>
      </form>
      {error && <p className="error" role="alert">{error}</p>}
    </Panel>
  );
}

function Notes({ data, d, again }: { data: Data; d: string | null; again: () => void }) {
  const [note, setNote] = useState(data.note);
  const [tags, setTags] = useState(data.tags.join(", "));
  const [list, setList] = useState("");
  const [said, say] = useState<string | null>(null);
  const n = data.latent.latent;
  const done = (work: Promise<unknown>, text: string) => work.then(() => { say(text); again(); }, (e: Error) => say(e.message));
  return (
    <details className="panel" open={Boolean(data.note || data.tags.length)}>
      <summary>Note, tags, lists</summary>
      <Field label="Note"><textarea rows={3} value={note} onChange={(e) => setNote(e.target.value)} /></Field>
      <Field label="Tags, with commas"><input value={tags} onChange={(e) => setTags(e.target.value)} /></Field>
      <button onClick={() => done(send("PUT", `/latent/${n}/notes`, { note, tags: tags.split(",").map((t) => t.trim()).filter(Boolean), dictionary: d }), "Kept.")}>Keep</button>
      <form className="row" onSubmit={(e) => { e.preventDefault(); if (list.trim()) done(post(`/lists/${encodeURIComponent(list.trim())}`, { latent: n, dictionary: d }), `On the list ${list.trim()}.`); }}>
        <Field label="Put on list" grow><input value={list} onChange={(e) => setList(e.target.value)} /></Field>
        <button type="submit">Put</button>
      </form>
      <p role="status" className="dim">{said}</p>
    </details>
  );
}
