// Small pictures, drawn by hand: histogram, lines, bars, a vector as an image, a heat map.
import { useEffect, useMemo, useRef, useState } from "react";
import { short } from "../format";

export function Histogram({ counts, edges, name, tone = "warm", log = true }: { counts: number[]; edges: [number, number]; name: string; tone?: string; log?: boolean }) {
  const most = Math.max(1, ...counts);
  const height = (n: number) => (n ? Math.max(log ? Math.log1p(n) / Math.log1p(most) : n / most, 0.03) * 56 : 0);
  const total = counts.reduce((a, b) => a + b, 0);
  return (
    <figure className="chart">
      <svg viewBox={`0 0 ${counts.length * 4} 60`} preserveAspectRatio="none" role="img" aria-label={`${name}: ${total} values from ${short(edges[0])} to ${short(edges[1])}`}>
        {counts.map((n, i) => (
          <rect key={i} x={i * 4} y={58 - height(n)} width={3.4} height={height(n)} className={tone}>
            <title>{`${short(edges[0] + ((edges[1] - edges[0]) * i) / counts.length)} to ${short(edges[0] + ((edges[1] - edges[0]) * (i + 1)) / counts.length)}: ${n}`}</title>
          </rect>
        ))}
        <line x1="0" x2={counts.length * 4} y1="58.5" y2="58.5" className="axis" />
      </svg>
      <figcaption>
        <span>{short(edges[0])}</span>
        <span>{name}{log ? " (log height)" : ""}</span>
        <span>{short(edges[1])}</span>
      </figcaption>
    </figure>
  );
}

export interface Line { name: string; points: [number, number][]; className?: string }

export function Lines({ lines, x, y, mark, height = 160, logX, zero = true }: { lines: Line[]; x: string; y: string; mark?: number; height?: number; logX?: boolean; zero?: boolean }) {
  const width = 480, left = 46, bottom = 26;
  const fx = (v: number) => (logX ? Math.log2(1 + v) : v);
  const all = lines.flatMap((l) => l.points);
  if (!all.length) return null;
  const xs = all.map((p) => fx(p[0])), ys = all.map((p) => p[1]).filter(Number.isFinite);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1e-9);
  const y0 = zero ? Math.min(0, ...ys) : Math.min(...ys), y1 = Math.max(...ys, y0 + 1e-9);
  const px = (v: number) => left + ((fx(v) - x0) / (x1 - x0)) * (width - left - 8);
  const py = (v: number) => 8 + (1 - (v - y0) / (y1 - y0)) * (height - bottom - 8);
  const ticks = [y0, (y0 + y1) / 2, y1];
  const xTicks = logX ? [...new Set(lines[0].points.map((p) => p[0]))].filter((v) => [0, 1, 2, 4, 8, 16].includes(v)) : [x0, (x0 + x1) / 2, x1];
  return (
    <figure className="chart lines">
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={`${y} by ${x}: ${lines.map((l) => l.name).join(", ")}`}>
        {ticks.map((t) => (
          <g key={t}>
            <line x1={left} x2={width - 8} y1={py(t)} y2={py(t)} className="grid" />
            <text x={left - 6} y={py(t) + 4} textAnchor="end">{short(t)}</text>
          </g>
        ))}
        {xTicks.map((t) => (
          <text key={t} x={px(t)} y={height - 8} textAnchor="middle">{short(t)}</text>
        ))}
        {mark !== undefined && <line x1={px(mark)} x2={px(mark)} y1={8} y2={height - bottom} className="mark" />}
        {lines.map((l, i) => (
          <polyline key={l.name} className={`line ${l.className ?? `c${i}`}`} points={l.points.filter((p) => Number.isFinite(p[1])).map((p) => `${px(p[0])},${py(p[1])}`).join(" ")} />
        ))}
      </svg>
      <figcaption className="legend">
        {lines.map((l, i) => (
          <span key={l.name}><i className={l.className ?? `c${i}`} /> {l.name}</span>
        ))}
        <span className="dim">{y} by {x}</span>
      </figcaption>
    </figure>
  );
}

// Bars to both sides of zero, with a name each.
export function Bars({ rows, digits = 2, unit = "" }: { rows: { name: React.ReactNode; value: number; key: string | number; tone?: string }[]; digits?: number; unit?: string }) {
  const most = Math.max(1e-9, ...rows.map((r) => Math.abs(r.value)));
  return (
    <ul className="bars">
      {rows.map((r) => (
        <li key={r.key}>
          <span className="name">{r.name}</span>
          <span className="track" aria-hidden="true">
            <span className={`fill ${r.tone ?? (r.value < 0 ? "cold" : "warm")}`} style={{ width: `${(Math.abs(r.value) / most) * 100}%` }} />
          </span>
          <span className="value">{r.value < 0 ? "−" : ""}{Math.abs(r.value).toFixed(digits)}{unit}</span>
        </li>
      ))}
    </ul>
  );
}

function ramp(share: number): [number, number, number, number] {
  const a = Math.min(Math.abs(share), 1);
  return share > 0 ? [214, 96, 26, a * 255] : [38, 104, 190, a * 255];
}

// A vector as a square image: warm above zero, cold below, full at 2.5 times its root mean square.
export function VectorImage({ values, size = 96, name }: { values: number[]; size?: number; name: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const side = Math.ceil(Math.sqrt(values.length));
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const image = context.createImageData(side, side);
    const rms = Math.sqrt(values.reduce((a, v) => a + v * v, 0) / values.length) || 1;
    values.forEach((v, i) => image.data.set(ramp(v / (2.5 * rms)), i * 4));
    context.putImageData(image, 0, 0);
  }, [values, side]);
  return <canvas ref={canvas} width={side} height={side} className="vector" style={{ width: size, height: size }} role={name ? "img" : undefined} aria-label={name || undefined} aria-hidden={!name} />;
}

// A heat map with names on both sides; a cell says what it is when it is pointed at.
export function Heat({ rows, columns, values, max, corner, onPick }: { rows: string[]; columns: string[]; values: (number | null)[][]; max?: number; corner: string; onPick?: (row: number, column: number) => void }) {
  const top = max ?? Math.max(1e-9, ...values.flat().map((v) => Math.abs(v ?? 0)));
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={corner}>
      <table className="heat">
        <thead>
          <tr>
            <th scope="col">{corner}</th>
            {columns.map((c, i) => <th key={i} scope="col">{c}</th>)}
          </tr>
        </thead>
        <tbody>
          {rows.map((r, i) => (
            <tr key={i}>
              <th scope="row">{r}</th>
              {values[i].map((v, j) => (
                <td
                  key={j} title={`${r}, ${columns[j]}: ${short(v)}`} onClick={onPick && (() => onPick(i, j))}
                  style={{ background: v == null ? undefined : `color-mix(in srgb, var(--tint-${v < 0 ? "cold" : "warm"}) ${Math.min((Math.abs(v) / top) * 80, 80).toFixed(0)}%, transparent)` }}
                >
                  {v == null ? "" : Math.abs(v) >= 0.005 * top ? v.toFixed(2) : "·"}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

// Points on a plane; the nearest one to the pointer is named.
export function Scatter({ x, y, colour, name, label, onPick }: { x: number[]; y: number[]; colour: (number | null)[]; name: string; label: (i: number) => string; onPick: (i: number) => void }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [near, setNear] = useState<number | null>(null);
  const size = 520;
  const scale = useMemo(() => {
    const x0 = Math.min(...x), x1 = Math.max(...x), y0 = Math.min(...y), y1 = Math.max(...y);
    return { px: x.map((v) => 12 + ((v - x0) / (x1 - x0 || 1)) * (size - 24)), py: y.map((v) => 12 + (1 - (v - y0) / (y1 - y0 || 1)) * (size - 24)) };
  }, [x, y]);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const known = colour.filter((v): v is number => v != null && v > 0).map(Math.log);
    const low = Math.min(...known), high = Math.max(...known, low + 1e-9);
    context.clearRect(0, 0, size, size);
    scale.px.forEach((p, i) => {
      const v = colour[i];
      const share = v == null || v <= 0 ? -1 : (Math.log(v) - low) / (high - low);
      context.fillStyle = share < 0 ? "#8886" : `hsl(${220 - 195 * share} 75% ${48 + 6 * share}%)`;
      context.beginPath();
      context.arc(p, scale.py[i], i === near ? 6 : 2.4, 0, 7);
      context.fill();
    });
  }, [scale, colour, near]);
  const find = (event: React.MouseEvent) => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box) return null;
    const mx = ((event.clientX - box.left) / box.width) * size, my = ((event.clientY - box.top) / box.height) * size;
    let best = -1, far = 400;
    scale.px.forEach((p, i) => {
      const d = (p - mx) ** 2 + (scale.py[i] - my) ** 2;
      if (d < far) [far, best] = [d, i];
    });
    return best < 0 ? null : best;
  };
  return (
    <figure className="chart scatter">
      <canvas
        ref={canvas} width={size} height={size} role="img" aria-label={name} onMouseMove={(e) => setNear(find(e))} onMouseLeave={() => setNear(null)}
        onClick={(e) => { const i = find(e); if (i !== null) onPick(i); }}
      />
      <figcaption>{near === null ? name : label(near)}</figcaption>
    </figure>
  );
}
