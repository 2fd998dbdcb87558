import { useState } from "react";
import type { Group } from "../api/types";
import { percent, short, visible } from "../format";
import { Choice } from "./common";
import { Tokens } from "./Tokens";

type Width = "8" | "24" | "all";

function cut(example: { tokens: string[]; values: number[]; peak: number }, width: Width) {
  if (width === "all") return { ...example };
  const before = +width, after = Math.ceil(before / 2);
  const first = Math.max(example.peak - before, 0), last = example.peak + after + 1;
  return { tokens: example.tokens.slice(first, last), values: example.values.slice(first, last), peak: example.peak - first };
}

export function Contexts({ some, max, width = "24", tint = "warm" as const }: { some: { tokens: string[]; values: number[]; peak: number; value: number }[]; max: number; width?: Width; tint?: "warm" | "cold" | "both" | "dark" }) {
  return (
    <ol className="contexts">
      {some.map((e, i) => {
        const c = cut(e, width);
        return (
          <li key={i}>
            <span className="value" title="activation at the peak">{short(e.value)}</span>
            <Tokens tokens={c.tokens} values={c.values} peak={c.peak} max={max} tint={tint} tip={(at) => `${visible(c.tokens[at])}  ${short(c.values[at])}`} />
          </li>
        );
      })}
    </ol>
  );
}

export function Groups({ groups, max, bins }: { groups: Group[]; max: number; bins?: boolean }) {
  const [width, setWidth] = useState<Width>("24");
  return (
    <>
      <Choice name="Words shown around the peak" value={width} onChange={setWidth} options={{ "8": "8 before", "24": "24 before", all: "all kept" }} />
      {groups.map((g, i) => (
        <section key={i} className="group">
          <h3>
            {i === 0 ? "Strongest contexts" : bins ? `Bin ${i} of ${groups.length - 1}` : `Quantile ${i} of ${groups.length - 1} of the rest`}{" "}
            <small>
              peaks {short(g.low)} to {short(g.high)} · {bins ? `contains ${percent(g.mass)}` : `${g.n.toLocaleString("en")} distinct contexts · ${percent(g.mass)} of all activation`}
            </small>
          </h3>
          <Contexts some={g.examples} max={max} width={width} />
        </section>
      ))}
    </>
  );
}
