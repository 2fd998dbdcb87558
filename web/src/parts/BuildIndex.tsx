import { useState } from "react";
import { post } from "../api/client";
import type { Job } from "../api/types";
import { JobRow } from "./JobRow";

export function BuildIndex({ d, error }: { d: string; error: string }) {
  const [job, setJob] = useState<Job | null>(null);
  const [wrong, setWrong] = useState<string | null>(null);
  return (
    <section className="panel">
      <p>{error}</p>
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
