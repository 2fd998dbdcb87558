import { useState } from "react";
import type { ReactNode } from "react";
import { get, post } from "../api/client";
import type { IndexFacts, Job } from "../api/types";
import { useAsk } from "../ask";
import { Show } from "./common";
import { JobRow } from "./JobRow";

// What needs an index, or the offer to build one.
export function Indexed({ d, children }: { d: string | null; children: (facts: IndexFacts) => ReactNode }) {
  const facts = useAsk<IndexFacts>(d, (signal) => get("/index", { dictionary: d }, signal));
  if (!d) return <p className="dim">No dictionary is served. Train one, then: lensing serve INDEX.</p>;
  return <Show asked={facts}>{(f) => (f.name !== d ? null : f.indexed ? children(f) : <BuildIndex d={d} />)}</Show>;
}

function BuildIndex({ d }: { d: string }) {
  const [job, setJob] = useState<Job | null>(null);
  const [wrong, setWrong] = useState<string | null>(null);
  return (
    <section className="panel">
      <p>{d} has no index yet: what each of its latents does on a text.</p>
      {job ? (
        <JobRow first={job} onDone={() => window.location.reload()} />
      ) : (
        <button className="main" onClick={() => post<Job>("/index", { dictionary: d }).then(setJob, (e: Error) => setWrong(e.message))}>
          Build it now
        </button>
      )}
      {wrong && <p className="error" role="alert">{wrong}</p>}
    </section>
  );
}
