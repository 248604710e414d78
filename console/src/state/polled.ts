// Something that is asked for again and again while it is on the screen. Pure: the last good value stays.

export interface Polled<T> {
  value: T | null;
  atMs: number; // when the value came
  problem: string; // why there is none newer; "" while all is well
}

export type PollFact<T> = { kind: "came"; value: T; atMs: number } | { kind: "failed"; problem: string };

export const nothing = { value: null, atMs: 0, problem: "" } as const;

export function polled<T>(state: Polled<T>, fact: PollFact<T>): Polled<T> {
  return fact.kind === "came" ? { value: fact.value, atMs: fact.atMs, problem: "" } : { ...state, problem: fact.problem };
}
