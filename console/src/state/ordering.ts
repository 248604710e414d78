// Orders that were given on this page: which are under way, what is asked first, and what came of them.

import { signal } from "@preact/signals";

import type { Change } from "../api/orders";
import { changeModel, makeToken } from "../api/orders";
import type { Action } from "./rows";
import { messageOf } from "./signals";

// -- models ----------------------------------------------------------------------------------------

export const asking = signal<ReadonlyMap<string, Change>>(new Map()); // by model: what was asked and not yet answered
export const modelProblem = signal<{ model: string; message: string } | null>(null);
export const unconfirmed = signal<{ model: string; action: Action } | null>(null);
export const modelFilter = signal("");

export const openFits = signal(""); // the model whose nodes are listed; "" for none

export function showFits(model: string, isOpen: boolean): void {
  if (isOpen) openFits.value = model;
  else if (openFits.value === model) openFits.value = "";
}

// Asks back where something would be lost, else orders it at once.
export function propose(model: string, action: Action): void {
  if (action.question === "") void order(model, action);
  else unconfirmed.value = { model, action };
}

export function confirm(isMeant: boolean): void {
  const proposed = unconfirmed.value;
  unconfirmed.value = null;
  if (proposed && isMeant) void order(proposed.model, proposed.action);
}

// A load can take minutes, and another order ends it; of what was ended so nothing more is said.
export function isBusy(model: string, change: Change): boolean {
  const asked = asking.value.get(model);
  return asked !== undefined && (asked !== "load" || change === "load");
}

async function order(model: string, { change, at }: Action): Promise<void> {
  if (isBusy(model, change)) return;
  asking.value = new Map(asking.value).set(model, change);
  modelProblem.value = null;
  let problem = "";
  try {
    await changeModel(model, change, at);
  } catch (error) {
    problem = messageOf(error);
  }
  if (asking.value.get(model) !== change) return;
  if (problem) modelProblem.value = { model, message: problem };
  asking.value = new Map([...asking.value].filter(([other]) => other !== model));
}

// -- tokens ----------------------------------------------------------------------------------------

export interface Invitation {
  token: string; // "" before one was made; it lives in this page alone
  isShown: boolean;
  isAsking: boolean;
  problem: string;
}

const NO_INVITATION: Invitation = { token: "", isShown: false, isAsking: false, problem: "" };
export const invitation = signal<Invitation>(NO_INVITATION);

export async function invite(rights: string): Promise<void> {
  if (invitation.value.isAsking) return;
  invitation.value = { ...NO_INVITATION, isAsking: true };
  try {
    invitation.value = { ...NO_INVITATION, token: await makeToken(rights) };
  } catch (error) {
    invitation.value = { ...NO_INVITATION, problem: messageOf(error) };
  }
}

export function showToken(isShown: boolean): void {
  invitation.value = { ...invitation.value, isShown };
}
