// Numbers as people read them. Pure.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value: number): string {
  let amount = value;
  let unit = 0;
  while (amount >= 1024 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${UNITS[unit]}`;
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

export function tokens(value: number): string {
  return value >= 1024 && value % 1024 === 0 ? `${count(value / 1024)}k` : count(value);
}

export function parameters(value: number): string {
  if (value <= 0) return "";
  if (value >= 1e9) return `${(value / 1e9).toFixed(value >= 1e10 ? 0 : 1)}B`;
  return `${Math.round(value / 1e6)}M`;
}

export function duration(value_s: number): string {
  const s = Math.max(0, Math.floor(value_s));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export function milliseconds(value_ms: number): string {
  return `${value_ms < 10 ? value_ms.toFixed(1) : Math.round(value_ms)} ms`;
}

export function percent(share: number): string {
  return `${Math.floor(Math.min(1, Math.max(0, share)) * 100)} %`;
}

export function clockTime(atMs: number): string {
  return new Date(atMs).toLocaleTimeString("en-GB");
}

// The order of names: cheaper by far than one that knows languages, and names of models are in none.
export function byName(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
