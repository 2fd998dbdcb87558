import { useVirtualizer } from "@tanstack/react-virtual";
import { useCallback, useEffect, useRef, useState } from "react";
import { get, post } from "../api/client";
import type { Context, IndexFacts, Page, Places } from "../api/types";
import { useAsk } from "../ask";
import { Scatter } from "../charts/charts";
import { percent, short } from "../format";
import { useDictionary } from "../house";
import { Indexed } from "../parts/BuildIndex";
import { Contexts } from "../parts/Examples";
import { Choice, Field, Link, Panel, Show, Stat } from "../parts/common";
import { go, latentHref, useParam } from "../route";

const SHOWN = ["density", "max", "mean", "skew", "precision", "recall", "decoder_cosine", "correlation", "logit", "label_f1"];
const CHUNK = 100;
const shows = (name: string, v: number | null) => (name === "density" || name === "precision" || name === "recall" ? percent(v, 2) : short(v));

export function BrowsePage() {
  const [d] = useDictionary();
  const [view, setView] = useParam("view", "table");
  return (
    <>
      <h1>All latents <small className="dim">{d}</small></h1>
      <Indexed d={d}>
          {(f) => (
            <>
              <dl className="stats">
                <Stat name="latents">{f.latents.toLocaleString("en")}</Stat>
                <Stat name="never fire">{f.dead.toLocaleString("en")}</Stat>
                <Stat name="on fewer than 10 tokens">{f.rare.toLocaleString("en")}</Stat>
                <Stat name="active a token">{f.l0.toFixed(1)}</Stat>
                <Stat name="text">{f.tokens.toLocaleString("en")} tokens of {f.text}</Stat>
              </dl>
              <Choice name="View" value={view as "table" | "map" | "dark"} options={{ table: "table", map: "map", dark: "what is missed" }} onChange={setView} />
              {view === "map" ? <MapView d={d!} facts={f} /> : view === "dark" ? <DarkView d={d!} /> : <TableView d={d!} facts={f} />}
            </>
          )}
      </Indexed>
    </>
  );
}

function DarkView({ d }: { d: string }) {
  const asked = useAsk<{ contexts: Context[] }>(`dark ${d}`, (signal) => get("/dark", { dictionary: d }, signal));
  return (
    <Panel title="The darkest tokens" about="One of each piece of the text: where the dictionary misses the largest share of the vector, |x − x̂|² / |x|². A share above 1 means that its output is farther away than nothing. It does not say which concepts are missing there.">
      <Show asked={asked} wait="Looking through the text">{(a) => <Contexts some={a.contexts} max={1} tint="dark" />}</Show>
    </Panel>
  );
}

type Bound = [string, number | null, number | null];
// "density>0.001,max<5" in the address
const readBounds = (text: string): Bound[] =>
  text.split(",").flatMap((part) => {
    const m = /^(\w+)([<>])(-?[\d.e-]+)$/.exec(part.trim());
    return m ? [[m[1], m[2] === ">" ? +m[3] : null, m[2] === "<" ? +m[3] : null] as Bound] : [];
  });

function TableView({ d, facts }: { d: string; facts: IndexFacts }) {
  const [sort, setSort] = useParam("sort", "-density");
  const [words, setWords] = useParam("q", "");
  const [bounds, setBounds] = useParam("where", "");
  const [rows, setRows] = useState<Map<number, { latent: number; values: (number | null)[]; label: string | null }>>(new Map());
  const [total, setTotal] = useState<number | null>(null);
  const [error, setError] = useState<string | null>(null);
  const asked = useRef(new Set<number>());
  const key = JSON.stringify({ d, sort, words, bounds });
  const live = useRef(key);
  const fetchChunk = useCallback((chunk: number) => {
    if (asked.current.has(chunk)) return;
    asked.current.add(chunk);
    const mine = live.current;
    post<Page>("/table", { dictionary: d, sort, words, where: readBounds(bounds), columns: SHOWN, offset: chunk * CHUNK, limit: CHUNK }).then(
      (page) => {
        if (live.current !== mine) return;
        setTotal(page.total);
        setError(null);
        setRows((old) => {
          const next = new Map(old);
          page.latents.forEach((latent, i) => next.set(chunk * CHUNK + i, { latent, values: SHOWN.map((c) => page.columns[c][i]), label: page.labels[i] }));
          return next;
        });
      },
      (e: Error) => live.current === mine && setError(e.message),
    );
  }, [d, sort, words, bounds]);
  useEffect(() => {
    live.current = key;
    asked.current.clear();
    setRows(new Map());
    setTotal(null);
    fetchChunk(0);
  }, [key, fetchChunk]);
  const box = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({ count: total ?? 0, getScrollElement: () => box.current, estimateSize: () => 30, overscan: 12 });
  const items = virtual.getVirtualItems();
  useEffect(() => {
    for (const item of items) fetchChunk(Math.floor(item.index / CHUNK));
  }, [items, fetchChunk]);
  const head = (name: string) => {
    const on = sort.replace("-", "") === name;
    return (
      <th key={name} scope="col" className={name === "latent" ? undefined : "num"} aria-sort={on ? (sort.startsWith("-") ? "descending" : "ascending") : "none"}>
        <button className="link" title={facts.columns[name]} onClick={() => setSort(sort === `-${name}` ? name : `-${name}`)}>
          {name.replace("_", " ")}{on ? (sort.startsWith("-") ? " ↓" : " ↑") : ""}
        </button>
      </th>
    );
  };
  const top = items[0]?.start ?? 0, rest = virtual.getTotalSize() - (items.at(-1)?.end ?? 0);
  return (
    <>
      <div className="row">
        <Field label="Words of the label" grow><input value={words} onChange={(e) => setWords(e.target.value)} placeholder="doubt" /></Field>
        <Field label="Bounds, with commas" grow><input value={bounds} onChange={(e) => setBounds(e.target.value)} placeholder="density>0.001, label_f1>0.8" spellCheck={false} /></Field>
      </div>
      {error && <p className="error" role="alert">{error}</p>}
      <p role="status" className="dim small">{total === null ? "Sorting …" : `${total.toLocaleString("en")} latents`}</p>
      <div className="virtual" ref={box} tabIndex={0} role="region" aria-label="Table of latents">
        <table className="data">
          <thead><tr>{head("latent")}<th scope="col">label</th>{SHOWN.map(head)}</tr></thead>
          <tbody>
            {top > 0 && <tr aria-hidden="true" style={{ height: top }}><td colSpan={SHOWN.length + 2} /></tr>}
            {items.map((item) => {
              const row = rows.get(item.index);
              return (
                <tr key={item.key} style={{ height: item.size }}>
                  <th scope="row">{row ? <Link to={latentHref(row.latent, d)}>{row.latent}</Link> : "…"}</th>
                  <td className="label">{row?.label}</td>
                  {SHOWN.map((c, i) => <td key={c} className="num">{row ? shows(c, row.values[i]) : ""}</td>)}
                </tr>
              );
            })}
            {rest > 0 && <tr aria-hidden="true" style={{ height: rest }}><td colSpan={SHOWN.length + 2} /></tr>}
          </tbody>
        </table>
      </div>
    </>
  );
}

function MapView({ d, facts }: { d: string; facts: IndexFacts }) {
  const [colour, setColour] = useParam("colour", "density");
  const asked = useAsk<Places>(`${d} ${colour}`, (signal) => get("/map", { dictionary: d, colour }, signal));
  return (
    <Panel title="The latents' directions on a plane" about="The two directions along which decoder rows differ most: near on this map is not always near in the model. Choose a point to open its latent; the table has the same latents for the keyboard.">
      <Field label="Colour by">
        <select value={colour} onChange={(e) => setColour(e.target.value)}>{Object.keys(facts.columns).map((c) => <option key={c} value={c}>{c.replace("_", " ")}</option>)}</select>
      </Field>
      <Show asked={asked}>
        {(m) => <Scatter x={m.x} y={m.y} colour={m.colour} name={`${m.x.length.toLocaleString("en")} latents; the plane holds ${percent(m.share)} of the variance`} label={(i) => `latent ${i}: ${facts.columns[colour]} ${short(m.colour[i])}`} onPick={(i) => go(latentHref(i, d))} />}
      </Show>
    </Panel>
  );
}
