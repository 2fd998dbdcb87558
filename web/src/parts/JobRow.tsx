import { useEffect, useRef, useState } from "react";
import { post } from "../api/client";
import type { Job } from "../api/types";

export function JobRow({ first, onDone }: { first: Job; onDone?: () => void }) {
  const [job, setJob] = useState(first);
  const done = useRef(onDone);
  done.current = onDone;
  useEffect(() => {
    if (first.state !== "running") return;
    const events = new EventSource(`/api/jobs/${first.id}/events`);
    events.onmessage = (event) => {
      const now = JSON.parse(event.data) as Job;
      setJob(now);
      if (now.state !== "running") events.close();
      if (now.state === "done") done.current?.();
    };
    return () => events.close();
  }, [first.id, first.state]);
  const left = job.total && job.rate ? (job.total - job.done) / job.rate : null;
  return (
    <div className="job">
      <b>{job.what}</b> <span className={`state ${job.state}`}>{job.state}</span>
      {job.state === "running" && (
        <>
          <progress max={job.total ?? undefined} value={job.total ? job.done : undefined} aria-label={job.what} />
          <span className="dim">{job.step} {job.done.toLocaleString("en")}{job.total && ` of ${job.total.toLocaleString("en")}`} {job.unit}{left !== null && `, ${Math.ceil(left)} s left`}</span>
          <button onClick={() => void post(`/jobs/${job.id}/cancel`, {})}>Cancel</button>
        </>
      )}
      {job.error && <p className="error" role="alert">{job.error}</p>}
    </div>
  );
}
