export const visible = (token: string) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
export const word = (token: string) => visible(token).trim() || JSON.stringify(token);
export const percent = (value: number | null | undefined, digits = 1) =>
  value == null ? "–" : `${(100 * value).toFixed(digits)}%`;
export function short(value: number | null | undefined): string {
  if (value == null || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en");
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  const text = value.toPrecision(3);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}
export const signed = (value: number | null | undefined, digits = 2) =>
  value == null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
export const density = (value: number) =>
  value === 0 ? "never" : value < 1e-4 ? `${(value * 1e6).toPrecision(2)} in a million` : `${(value * 100).toPrecision(3)}%`;
