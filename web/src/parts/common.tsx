import type { ReactNode } from "react";
import type { Asked } from "../ask";
import { follow, latentHref } from "../route";

export function Link({ to, children, className, title }: { to: string; children: ReactNode; className?: string; title?: string }) {
  return (
    <a href={to} onClick={follow} className={className} title={title}>
      {children}
    </a>
  );
}

export function LatentLink({ id, d, label }: { id: number; d?: string | null; label?: string | null }) {
  return (
    <Link to={latentHref(id, d)} className="latent-link">
      <b>{id}</b>
      {label && <span className="dim"> {label}</span>}
    </Link>
  );
}

// What came, or why nothing did, or that it is on its way.
export function Show<T>({ asked, children, wait = "Reading" }: { asked: Asked<T>; children: (data: T) => ReactNode; wait?: string }) {
  return (
    <>
      {asked.error && (
        <p className="error" role="alert">
          {asked.error}
        </p>
      )}
      {asked.data != null ? (
        <div className={asked.busy ? "stale" : undefined} aria-busy={asked.busy}>
          {children(asked.data)}
        </div>
      ) : (
        asked.busy && (
          <p className="dim" role="status">
            {wait} …
          </p>
        )
      )}
    </>
  );
}

export function Field({ label, children, grow }: { label: string; children: ReactNode; grow?: boolean }) {
  return (
    <label className={grow ? "field grow" : "field"}>
      <span>{label}</span>
      {children}
    </label>
  );
}

export function Panel({ title, about, children, id, number }: { title: string; about?: ReactNode; children: ReactNode; id?: string; number?: number }) {
  return (
    <section className="panel" id={id} aria-labelledby={id && `${id}-title`}>
      <h2 id={id && `${id}-title`}>
        {number && <span className="number">{number}</span>} {title}
      </h2>
      {about && <p className="about">{about}</p>}
      {children}
    </section>
  );
}

export function Stat({ name, children, title }: { name: string; children: ReactNode; title?: string }) {
  return (
    <div className="stat" title={title}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Choice<T extends string>({ name, value, options, onChange }: { name: string; value: T; options: Record<T, string>; onChange: (value: T) => void }) {
  return (
    <div className="choice" role="radiogroup" aria-label={name}>
      {(Object.entries(options) as [T, string][]).map(([key, text]) => (
        <label key={key} className={key === value ? "on" : undefined}>
          <input type="radio" name={name} checked={key === value} onChange={() => onChange(key)} />
          {text}
        </label>
      ))}
    </div>
  );
}

export const Verdict = ({ cost, text }: { cost: number; text: string }) => (
  <span className={`verdict ${text}`}>
    {text} <small>{cost >= 0 ? "+" : "−"}{Math.abs(cost).toFixed(2)} nats a token</small>
  </span>
);
