// Tokens as a row of plain spans, tinted; one tooltip for all of them.
import { Fragment, memo, useRef, useState } from "react";
import type { KeyboardEvent, MouseEvent, FocusEvent } from "react";
import { visible } from "../format";

export type Tint = "warm" | "cold" | "dark" | "both";

interface Props {
  tokens: string[];
  values?: (number | null)[];
  max?: number;
  tint?: Tint;
  peak?: number;
  special?: boolean[];
  chosen?: number[];
  label?: string;
  tip?: (position: number) => string;
  onPick?: (position: number) => void;
}

function shade(value: number | null, max: number, tint: Tint): string | undefined {
  if (value == null || !max) return undefined;
  const share = Math.min(Math.abs(value) / max, 1);
  if (share < 0.004) return undefined;
  const name = tint === "both" ? (value < 0 ? "cold" : "warm") : tint;
  return `color-mix(in srgb, var(--tint-${name}) ${(8 + 62 * share).toFixed(0)}%, transparent)`;
}

function TokensRow({ tokens, values, max, tint = "warm", peak, special, chosen, label, tip, onPick }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [shown, show] = useState<{ text: string; x: number; y: number } | null>(null);
  const top = max ?? Math.max(0, ...(values ?? []).map((v) => Math.abs(v ?? 0)));
  const point = (event: MouseEvent | FocusEvent) => {
    const at = (event.target as HTMLElement).dataset.at;
    if (at === undefined || !box.current || !(tip || values)) return show(null);
    const a = (event.target as HTMLElement).getBoundingClientRect();
    const b = box.current.getBoundingClientRect();
    const text = tip ? tip(+at) : `${visible(tokens[+at])}  ${(values?.[+at] ?? 0).toPrecision(3)}`;
    show({ text, x: Math.min(a.left - b.left, Math.max(b.width - 160, 0)), y: a.bottom - b.top + 4 });
  };
  const press = (event: KeyboardEvent) => {
    const at = Number((event.target as HTMLElement).dataset.at);
    if (Number.isNaN(at)) return;
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (move !== undefined) {
      event.preventDefault();
      box.current?.querySelector<HTMLElement>(`[data-at="${at + move}"]`)?.focus();
    } else if (onPick && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      onPick(at);
    }
  };
  const pick = (event: MouseEvent) => {
    const at = (event.target as HTMLElement).dataset.at;
    if (at !== undefined && onPick) onPick(+at);
  };
  return (
    <div
      className={onPick ? "tokens pick" : "tokens"} ref={box} role={onPick ? "group" : undefined} aria-label={onPick ? label : undefined}
      onMouseOver={point} onMouseLeave={() => show(null)} onFocus={point} onBlur={() => show(null)} onKeyDown={press} onClick={pick}
    >
      {tokens.map((token, i) => (
        <Fragment key={i}>
          {token.startsWith(" ") && token.length > 1 && " "}
        <span
          data-at={i} role={onPick ? "button" : undefined} aria-pressed={onPick ? (chosen?.includes(i) ?? false) : undefined}
          tabIndex={onPick ? (i === (chosen?.[0] ?? 0) ? 0 : -1) : undefined}
          className={`${special?.[i] ? "special " : ""}${i === peak ? "peak " : ""}${chosen?.includes(i) ? "chosen" : ""}` || undefined}
          style={{ background: shade(values?.[i] ?? null, top, tint) }}
        >
          {visible(token.length > 1 && token.startsWith(" ") ? token.slice(1) : token)}
        </span>
        </Fragment>
      ))}
      {shown && (
        <div className="tip" role="tooltip" style={{ left: shown.x, top: shown.y }}>
          {shown.text}
        </div>
      )}
    </div>
  );
}

export const Tokens = memo(TokensRow);
