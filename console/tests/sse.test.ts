import { expect, test } from "vitest";

import type { ServerEvent } from "../src/api/sse";
import { EventParser, events } from "../src/api/sse";

const STREAM = ': hello\r\n\r\nid: a.1\r\nevent: status\r\ndata: {"a":\r\ndata: 1}\r\n\r\n: alive\n\ndata: last\n\nnot: finished';
const EXPECTED: ServerEvent[] = [
  { name: "status", data: '{"a":\n1}', id: "a.1" },
  { name: "message", data: "last", id: "" },
];

test("the same events come out wherever the text is cut", () => {
  for (let cut = 0; cut <= STREAM.length; cut += 1) {
    const parser = new EventParser();

    const found = [...parser.push(STREAM.slice(0, cut)), ...parser.push(STREAM.slice(cut))];

    expect(found, `cut at ${cut}`).toEqual(EXPECTED);
  }
});

test("a character of several bytes survives being cut, and every arrival counts as a sign of life", async () => {
  const whole = new TextEncoder().encode("data: né\n\n: still here\n\n");
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of whole) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  let arrivals = 0;
  const found: ServerEvent[] = [];

  for await (const event of events(body, () => (arrivals += 1))) found.push(event);

  expect(found).toEqual([{ name: "message", data: "né", id: "" }]);
  expect(arrivals).toBe(whole.length);
});
