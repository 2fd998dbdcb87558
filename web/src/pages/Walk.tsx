import { useMemo, useState } from "react";
import { get, post } from "../api/client";
import type { Beyond, Effect, Inference, LatentPage, Read, Slide, Unit, Why } from "../api/types";
import { useAsk } from "../ask";
import { Bars, VectorImage } from "../charts/charts";
import { percent, short, signed, visible, word } from "../format";
import { useDictionary, useHouse } from "../house";
import { Choice, Field, LatentLink, Link, Panel, Show, Stat } from "../parts/common";
import { Indexed } from "../parts/BuildIndex";
import { Contexts } from "../parts/Examples";
import { NextWords, StrengthSlider } from "../parts/Slider";
import { Tokens } from "../parts/Tokens";
import { go, useNumber, useParam } from "../route";
import { LensGrid } from "./LensGrid";

export function WalkPage() {
  const house = useHouse();
  const [prompt, setPrompt] = useParam("prompt", house.prompt);
  const [typed, setTyped] = useState(prompt);
  const [d] = useDictionary();
  const [at, setAt] = useNumber("at", -1);
  const [lens, setLens] = useParam("lens", "logit");
  const [chosen, setChosen] = useParam("latent", "");
  const [strength, setStrength] = useNumber("s", 2);
  const read = useAsk<Read>(`${prompt} ${at} ${lens}`, (signal) => post("/read", { prompt, position: at, lens }, signal));
  const latent = chosen === "" ? null : Number(chosen);
  const beyond = useAsk<Beyond>(d && `${prompt} ${d} ${latent}`, (signal) => post("/beyond", { prompt, dictionary: d, latent }, signal));
  return (
    <>
      <h1>The walk</h1>
      <p className="lead">One sentence through {house.model.name}, from its tokens to what stays dark.</p>
      <form
        className="row" role="search" aria-label="The sentence"
        onSubmit={(e) => {
          e.preventDefault();
          setPrompt(typed.trim() || house.prompt);
          setAt(-1);
        }}
      >
        <Field label="Sentence" grow>
          <input value={typed} onChange={(e) => setTyped(e.target.value)} spellCheck={false} autoComplete="off" />
        </Field>
        <button type="submit" className="main">Walk</button>
      </form>
      <Show asked={read} wait="The model reads">
        {(data) => (
          <>
            <Panel id="tokens" number={1} title="Tokens" about="The text as the model reads it: pieces with numbers. Choose one to follow its vector; a grey one counts nowhere.">
              <ol className="chips" aria-label="Tokens">
                {data.tokens.map((t, i) => (
                  <li key={i}>
                    <button className={`chip${t.special ? " special" : ""}`} aria-pressed={i === data.position} onClick={() => setAt(i)}>
                      {visible(t.text)} <small>{t.id}</small>
                    </button>
                  </li>
                ))}
              </ol>
            </Panel>
            <Vectors data={data} />
            <Panel
              id="lens" number={3} title="Every layer's guess"
              about={<>What each layer would say next if it were the last. At the end, {word(data.next[0].word)} leads {data.lens.lead_layer[0].at(-1) === -1 ? "from the embedding on" : `from layer ${data.lens.lead_layer[0].at(-1)} on`} ({percent(data.next[0].p)}). Point at a cell for its ten likeliest words, choose it for what wrote them.</>}
            >
              {house.model.tuned_lens && <Choice name="Lens" value={lens as "logit" | "tuned"} options={{ logit: "logit lens", tuned: "tuned lens" }} onChange={setLens} />}
              <LensGrid data={data} prompt={prompt} />
            </Panel>
          </>
        )}
      </Show>
      {house.model.neurons.length > 0 && d && <Neuron prompt={prompt} />}
      {!d && <p className="panel">Beats 4 to 9 need a dictionary: train one with <code>lensing train</code>, then <code>lensing index</code>, then <code>lensing serve</code>.</p>}
      {d && (
        <Show asked={beyond} wait="Taking each latent out">
          {(data) => (
            <>
              <Latents data={data} d={d} prompt={prompt} onFollow={(i) => setChosen(String(i))} />
              <Panel
                id="latent" number={6} title={`What latent ${data.latent} fires on`}
                about={<>Followed because {data.why.why === "as asked" ? "you chose it" : data.why.concept ? `a contrast of sentences found it for “${data.why.concept.replace(".", " ")}”` : "it moves the next word most"}. {data.labels[data.latent] && <>Its label: <em>{data.labels[data.latent]}</em>. </>}<Link to={`/latent/${data.latent}?d=${encodeURIComponent(d)}`}>All about it</Link></>}
              >
                <Indexed d={d}>{() => <Strongest latent={data.latent} d={d} />}</Indexed>
              </Panel>
              <Splice data={data} />
              <Panel id="steer" number={8} title="Turn it up" about={`Latent ${data.latent} written into every word of the sentence, stronger as you drag. Watch the next word change, and the point where language breaks.`}>
                <StrengthSlider key={data.latent} prompt={prompt} latent={data.latent} d={d} strength={strength} onStrength={setStrength} />
              </Panel>
              <Ledger data={data} shipped={house.shipped} />
            </>
          )}
        </Show>
      )}
      {house.pairs && <Senses />}
    </>
  );
}

function Strongest({ latent, d }: { latent: number; d: string }) {
  const page = useAsk<LatentPage>(`${latent} ${d}`, (signal) => get(`/latent/${latent}`, { dictionary: d }, signal));
  return <Show asked={page}>{(p) => <Contexts some={p.latent.groups[0]?.examples.slice(0, 8) ?? []} max={p.latent.max} />}</Show>;
}

function Vectors({ data }: { data: Read }) {
  const sites = Object.keys(data.vectors);
  const [layer, setLayer] = useState(sites.length - 1);
  const name = (site: string) => (site.includes(".") ? `after layer ${site.split(".")[1]}` : "embedding");
  const shown = sites[Math.min(layer, sites.length - 1)];
  const token = data.tokens[data.position];
  return (
    <Panel
      id="vectors" number={2} title="One vector through the layers"
      about={<>The residual stream at “{word(token.text)}”: {data.vectors[shown].length.toLocaleString("en")} numbers, drawn as a square. Orange above zero, blue below.</>}
    >
      <div className="vectors">
        <figure>
          <VectorImage values={data.vectors[shown]} size={220} name={`The vector ${name(shown)}`} />
          <figcaption>{name(shown)}, length {short(data.norms[shown][data.position])}</figcaption>
        </figure>
        <div className="strip">
          <Field label="Layer" grow>
            <input type="range" min={0} max={sites.length - 1} value={layer} onChange={(e) => setLayer(+e.target.value)} aria-valuetext={name(shown)} />
          </Field>
          <div className="thumbs">
            {sites.map((s, i) => (
              <button key={s} aria-pressed={i === layer} onClick={() => setLayer(i)} aria-label={name(s)}>
                <VectorImage values={data.vectors[s]} size={64} name="" />
              </button>
            ))}
          </div>
        </div>
      </div>
    </Panel>
  );
}

function Neuron({ prompt }: { prompt: string }) {
  const house = useHouse();
  const last = house.model.n_layers - 1;
  const [layer, setLayer] = useState(last);
  const strongest = useAsk<{ site: string; units: { number: number; value: number }[] }>(`${prompt} ${layer}`, (signal) => post("/neurons", { text: prompt, layer }, signal));
  const [picked, pick] = useState<number | null>(null);
  const number = picked ?? strongest.data?.units[0].number ?? null;
  const site = `mlp_post.${layer}`;
  const unit = useAsk<Unit>(number === null ? null : `${site} ${number}`, (signal) => get("/unit", { site, number }, signal));
  return (
    <Panel id="neuron" number={4} title="One neuron that means many things" about="The neurons that are strongest at the last word. Where else is one of them strong? Rarely on one thing only.">
      <div className="row">
        <Field label="Layer">
          <select value={layer} onChange={(e) => { setLayer(+e.target.value); pick(null); }}>
            {house.model.neurons.map((_, i) => <option key={i} value={i}>{i}</option>)}
          </select>
        </Field>
        <Field label="Neuron">
          <select value={number ?? ""} onChange={(e) => pick(+e.target.value)}>
            {strongest.data?.units.map((u) => <option key={u.number} value={u.number}>{u.number} ({signed(u.value)})</option>)}
          </select>
        </Field>
        {number !== null && <Link to={`/unit?site=${site}&number=${number}`} className="button">All about it</Link>}
      </div>
      <Show asked={unit} wait="Looking through the text">
        {(u) => (
          <div className="columns">
            <div><h3>Where it is strongest above zero</h3><Contexts some={u.top.slice(0, 5)} max={Math.max(u.max, -u.min)} width="8" tint="both" /></div>
            <div><h3>… and below</h3><Contexts some={u.bottom.slice(0, 5)} max={Math.max(u.max, -u.min)} width="8" tint="both" /></div>
          </div>
        )}
      </Show>
    </Panel>
  );
}

function Latents({ data, d, prompt, onFollow }: { data: Beyond; d: string; prompt: string; onFollow: (i: number) => void }) {
  const [order, setOrder] = useState<"effect" | "activation">("effect");
  const [off, setOff] = useState<number | null>(null);
  const [right, setRight] = useState("");
  const [wrong, setWrong] = useState("");
  const [pair, setPair] = useState<{ right: string; wrong: string } | null>(null);
  const e = data.effects;
  const rows = useMemo(() => {
    const all: Effect[] = order === "effect" ? [...e.latents, e.error, e.bias] : [...e.latents];
    const key = (x: Effect) => (order === "effect" ? Math.abs(x.effect) : (x.activation ?? 0));
    const sorted = all.sort((a, b) => key(b) - key(a)), top = sorted.slice(0, 14);
    return order === "effect" && !top.includes(e.error) ? [...top, e.error] : top; // what is missed is never left out
  }, [e, order]);
  const ablated = useAsk<Slide>(off === null ? null : `${prompt} ${d} ${off}`, (signal) => post("/slide", { prompt, latent: off, dictionary: d, strengths: [0, 1], mode: "ablate", beside: false }, signal));
  const why = useAsk<Why>(pair && JSON.stringify({ pair, prompt, d }), (signal) => post("/why", { prompt, ...pair, dictionary: d }, signal));
  return (
    <Panel
      id="latents" number={5} title="Latents that mean one thing"
      about={<>What the dictionary {data.dictionary} finds in “{word(e.token)}”, each taken out alone: the change of ln p(“{word(e.target_word)}”). What it does not find stands as its own row, the error.</>}
    >
      <Choice name="Order" value={order} options={{ effect: "by effect", activation: "by activation" }} onChange={setOrder} />
      <div className="scroll" tabIndex={0} role="region" aria-label="Latents at the last word">
        <table className="data">
          <thead>
            <tr><th scope="col">latent</th><th scope="col">label</th><th scope="col" className="num">activation</th><th scope="col" className="num">without it</th><th scope="col"><span className="sr">actions</span></th></tr>
          </thead>
          <tbody>
            {rows.map((x) => (
              <tr key={x.latent ?? x.kind} className={x.kind === "latent" ? (x.latent === data.latent ? "on" : undefined) : "dark-row"}>
                <th scope="row">{x.latent === null ? x.kind : <LatentLink id={x.latent} d={d} />}</th>
                <td>{x.latent === null ? (x.kind === "error" ? "what the dictionary misses" : "what it always adds") : data.labels[x.latent]}</td>
                <td className="num">{short(x.activation)}</td>
                <td className={`num ${x.effect < 0 ? "cold-text" : "warm-text"}`}>{signed(x.effect, 3)}</td>
                <td className="actions">
                  {x.latent !== null && (
                    <>
                      <button aria-pressed={off === x.latent} onClick={() => setOff(off === x.latent ? null : x.latent)}>ablate</button>
                      <button aria-pressed={x.latent === data.latent} onClick={() => onFollow(x.latent as number)}>follow</button>
                    </>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {off !== null && (
        <Show asked={ablated}>
          {(s) => <div><h3>The next word without latent {off}</h3><NextWords before={s.directions[0].notches[0]} after={s.directions[0].notches[1]} /></div>}
        </Show>
      )}
      <details>
        <summary>Why this word and not that one?</summary>
        <form className="row" onSubmit={(event) => { event.preventDefault(); setPair({ right, wrong }); }}>
          <Field label="This word"><input value={right} required placeholder={word(data.splice.words[0].word)} onChange={(x) => setRight(x.target.value)} /></Field>
          <Field label="Not that one"><input value={wrong} required placeholder={word(data.splice.words[1]?.word ?? "")} onChange={(x) => setWrong(x.target.value)} /></Field>
          <button type="submit">Explain</button>
        </form>
        {pair && (
          <Show asked={why} wait="Running the model without each latent">
            {(w) => (
              <>
                <p>Logit difference {signed(w.whole)}. Latents of all words together {signed(w.sites[0].latents)}, errors {signed(w.sites[0].error)}; taken out at once they move it by {signed(w.sites[0].moved)}.</p>
                <Bars rows={w.nodes.slice(0, 14).map((n) => ({ key: n.latent ?? "error", value: n.effect, name: n.latent === null ? "error" : <LatentLink id={n.latent} d={d} label={n.label} />, tone: n.latent === null ? "dark" : undefined }))} />
              </>
            )}
          </Show>
        )}
      </details>
    </Panel>
  );
}

function Splice({ data }: { data: Beyond }) {
  const s = data.splice;
  return (
    <Panel id="splice" number={7} title="The splice" about={`The model run on the dictionary's output in the place of ${data.site}.`}>
      <dl className="stats">
        <Stat name="KL at the last word">{short(s.kl)} nats</Stat>
        <Stat name="mean KL">{short(s.kl_mean)} nats a token</Stat>
        <Stat name="loss of this text">{short(s.loss)} → {short(s.loss_spliced)}</Stat>
      </dl>
      <table className="words">
        <caption>The next word</caption>
        <thead><tr><th scope="col">word</th><th scope="col">model</th><th scope="col"><span className="sr">bar</span></th><th scope="col">spliced</th><th scope="col"><span className="sr">bar</span></th></tr></thead>
        <tbody>
          {s.words.map((w) => (
            <tr key={w.id}>
              <th scope="row">{word(w.word)}</th>
              <td className="num">{percent(w.before)}</td>
              <td className="bar"><i style={{ width: `${w.before * 100}%` }} /></td>
              <td className="num">{percent(w.after)}</td>
              <td className="bar"><i className="cold" style={{ width: `${w.after * 100}%` }} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </Panel>
  );
}

function Ledger({ data, shipped }: { data: Beyond; shipped: boolean }) {
  return (
    <Panel
      id="ledger" number={9} title="The ledger of this sentence"
      about={<>Under each word, the darker the more of its vector the dictionary does not reconstruct: {percent(data.not_reconstructed, 0)} over the sentence{data.corpus != null && `, ${percent(data.corpus, 0)} on its corpus`}.</>}
    >
      <div className="scroll" tabIndex={0} role="region" aria-label="Not reconstructed, word by word">
        <div className="ledger">
          {data.ledger.map((e, i) => (
            <div key={i} className={e.not_reconstructed === null ? "special" : undefined} title={`KL of the splice here: ${short(e.kl)} nats`}>
              <span className="tok">{visible(e.token)}</span>
              <span className="band" aria-hidden="true"><i style={{ height: `${Math.min((e.not_reconstructed ?? 0) * 100, 100)}%` }} /></span>
              <span className="num">{e.not_reconstructed === null ? "–" : percent(e.not_reconstructed, 0)}</span>
              <span className="num dim">{e.kl === null ? "" : short(e.kl)}</span>
            </div>
          ))}
        </div>
      </div>
      <p className="dim small">
        First row: the vector missed. Second row: behaviour missed, KL in nats when the model runs on the dictionary's output.
        Neither says which concepts are missing, nor that those it has are the ones the model uses{shipped ? ": labels are true of the text, not of the model's features. An instrument that works on this invented world is not thereby shown to work on yours." : "."}
      </p>
    </Panel>
  );
}

function Senses() {
  const house = useHouse();
  const pairs = house.pairs!;
  const [a, setA] = useState(pairs.senses[0]);
  const [b, setB] = useState(pairs.senses[1]);
  const d = pairs.dictionary;
  const one = useAsk<Inference>(`${a} ${d}`, (signal) => post("/search/inference", { text: a, dictionary: d }, signal), 300);
  const two = useAsk<Inference>(`${b} ${d}`, (signal) => post("/search/inference", { text: b, dictionary: d }, signal), 300);
  const layer = Number(/\.(\d+)/.exec(d)?.[1] ?? 0);
  const n1 = useAsk<{ units: { number: number; value: number }[] }>(`${a} n`, (signal) => post("/neurons", { text: a, layer }, signal), 300);
  const n2 = useAsk<{ units: { number: number; value: number }[] }>(`${b} n`, (signal) => post("/neurons", { text: b, layer }, signal), 300);
  const last = (x: Inference | null) => x?.latents.at(-1) ?? [];
  const label = (x: Inference | null, i: number) => x?.hits.find((h) => h.latent === i)?.label ?? null;
  const ids1 = new Set(last(one.data).map((p) => p[0])), ids2 = new Set(last(two.data).map((p) => p[0]));
  const shared = [...ids1].filter((i) => ids2.has(i));
  const neurons = n1.data?.units.filter((u) => n2.data?.units.some((v) => v.number === u.number && Math.sign(v.value) === Math.sign(u.value))) ?? [];
  const list = (x: Inference | null, other: Set<number>) => (
    <ul className="plain">
      {last(x).filter((p) => !other.has(p[0])).slice(0, 8).map((p) => (
        <li key={p[0]}><LatentLink id={p[0]} d={d} label={label(x, p[0])} /> <span className="dim num">{short(p[1])}</span></li>
      ))}
    </ul>
  );
  return (
    <Panel id="senses" title="One word, two senses; two words, one sense" about={`The last word of both sentences, seen by ${d}: the same neurons are strong, other latents fire. Then the same thing said in the world's second language.`}>
      <div className="row">
        <Field label="First sentence" grow><input value={a} onChange={(e) => setA(e.target.value)} /></Field>
        <Field label="Second sentence" grow><input value={b} onChange={(e) => setB(e.target.value)} /></Field>
        <button onClick={() => { setA(pairs.senses[0]); setB(pairs.senses[1]); }}>Two senses</button>
        <button onClick={() => { setA(pairs.translation[0]); setB(pairs.translation[1]); }}>Two languages</button>
      </div>
      {(one.error || two.error) && <p className="error" role="alert">{one.error ?? two.error}</p>}
      {one.data && two.data && (
        <>
          <div className="columns three">
            <div><h3>Only in the first</h3><Tokens tokens={one.data.tokens} peak={one.data.tokens.length - 1} />{list(one.data, ids2)}</div>
            <div>
              <h3>In both</h3>
              <ul className="plain">{shared.slice(0, 8).map((i) => <li key={i}><LatentLink id={i} d={d} label={label(one.data, i)} /></li>)}</ul>
              <p className="dim small">{neurons.length} of the 20 strongest neurons of layer {layer} are the same, with the same sign{neurons.length ? `: ${neurons.slice(0, 6).map((u) => u.number).join(", ")}` : ""}.</p>
            </div>
            <div><h3>Only in the second</h3><Tokens tokens={two.data.tokens} peak={two.data.tokens.length - 1} />{list(two.data, ids1)}</div>
          </div>
        </>
      )}
      <p className="small"><button className="link" onClick={() => go(`/search?by=text&q=${encodeURIComponent(a)}&d=${encodeURIComponent(d)}`)}>Search by the first sentence</button></p>
    </Panel>
  );
}
