// A text as the squares of a QR code: byte mode, the lowest level of correction, any of the forty sizes. Pure.
//
// A phone reads the code from a screen a hand's breadth away, so the lowest level does, and the code stays coarse.

// Of the lowest level, by size: check bytes of a block, and blocks.
const CHECK_BYTES =
  "7 10 15 20 26 18 20 24 30 18 20 24 26 30 22 24 28 30 28 28 28 28 30 30 26 28 30 30 30 30 30 30 30 30 30 30 30 30 30 30";
const BLOCKS =
  "1 1 1 1 1 2 2 2 2 4 4 4 4 4 6 6 6 6 7 8 8 9 9 10 12 12 12 13 14 15 16 17 18 19 19 20 21 22 24 25";
const checkBytes = CHECK_BYTES.split(" ").map(Number);
const blockCounts = BLOCKS.split(" ").map(Number);
const LARGEST = 40;
const LOWEST_LEVEL = 1; // as the format's two bits say it

export type Squares = boolean[][]; // rows; true is dark

// Returns the rows of the code; null for a text that no code holds.
export function qrCode(text: string): Squares | null {
  const data = new TextEncoder().encode(text);
  for (let size = 1; size <= LARGEST; size += 1) {
    const room = dataBytes(size);
    const lengthBits = size < 10 ? 8 : 16;
    if (4 + lengthBits + data.length * 8 <= room * 8) return best(size, woven(size, filled(data, lengthBits, room)));
  }
  return null;
}

// -- bytes -----------------------------------------------------------------------------------------

// How many squares of a code of this size are for data and checks.
function freeSquares(size: number): number {
  const side = size * 4 + 17;
  const marks = size < 2 ? 0 : Math.floor(size / 7) + 2; // alignment marks along a side
  const alignment = size < 2 ? 0 : (marks * marks - 3) * 25 - (marks - 2) * 2 * 5;
  const timing = 2 * (side - 16);
  const version = size < 7 ? 0 : 36;
  return side * side - 3 * 64 - 31 - timing - alignment - version;
}

const allBytes = (size: number): number => Math.floor(freeSquares(size) / 8);
const dataBytes = (size: number): number => allBytes(size) - (checkBytes[size - 1] ?? 0) * (blockCounts[size - 1] ?? 0);

// The bytes of a text in byte mode, filled up to the room.
function filled(data: Uint8Array, lengthBits: number, room: number): number[] {
  const bits: number[] = [];
  const put = (value: number, count: number) => {
    for (let at = count - 1; at >= 0; at -= 1) bits.push((value >> at) & 1);
  };
  put(4, 4);
  put(data.length, lengthBits);
  data.forEach((byte) => put(byte, 8));
  put(0, Math.min(4, room * 8 - bits.length));
  while (bits.length % 8 !== 0) bits.push(0);
  const bytes: number[] = [];
  for (let at = 0; at < bits.length; at += 8) bytes.push(bits.slice(at, at + 8).reduce((byte, bit) => byte * 2 + bit, 0));
  for (let pad = 0xec; bytes.length < room; pad ^= 0xfd) bytes.push(pad);
  return bytes;
}

// Divides bytes into blocks, gives each its check bytes, and takes from all blocks in turn.
function woven(size: number, bytes: number[]): number[] {
  const blocks = blockCounts[size - 1] ?? 1;
  const checks = checkBytes[size - 1] ?? 0;
  const short = Math.floor(bytes.length / blocks);
  const long = bytes.length % blocks; // so many, the last ones, have a byte more
  const parts: number[][] = [];
  for (let block = 0, from = 0; block < blocks; block += 1) {
    const length = short + (block >= blocks - long ? 1 : 0);
    parts.push(bytes.slice(from, from + length));
    from += length;
  }
  const divisor = generator(checks);
  const tails = parts.map((part) => remainder(part, divisor));
  const inTurn = (rows: number[][], length: number) =>
    Array.from({ length }, (_, at) => rows.flatMap((row) => (at < row.length ? [row[at] ?? 0] : []))).flat();
  return [...inTurn(parts, short + 1), ...inTurn(tails, checks)];
}

function times(a: number, b: number): number {
  let product = 0;
  for (let bit = 7; bit >= 0; bit -= 1) {
    product = (product << 1) ^ ((product >> 7) * 0x11d);
    product ^= ((b >> bit) & 1) * a;
  }
  return product;
}

// The polynomial with the roots 1, 2, 4 … without its leading 1, highest power first.
function generator(degree: number): number[] {
  let found = [1];
  for (let power = 0, root = 1; power < degree; power += 1, root = times(root, 2)) {
    const grown = [...found, 0];
    found.forEach((factor, at) => (grown[at + 1] = (grown[at + 1] ?? 0) ^ times(factor, root)));
    found = grown;
  }
  return found.slice(1);
}

function remainder(part: number[], divisor: number[]): number[] {
  const rest = divisor.map(() => 0);
  for (const byte of part) {
    const factor = byte ^ (rest.shift() ?? 0);
    rest.push(0);
    divisor.forEach((one, at) => (rest[at] = (rest[at] ?? 0) ^ times(one, factor)));
  }
  return rest;
}

// -- squares ---------------------------------------------------------------------------------------

const MASKS: ((x: number, y: number) => boolean)[] = [
  (x, y) => (x + y) % 2 === 0,
  (_, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

// The mask under which a reader is confused least.
function best(size: number, bytes: number[]): Squares {
  const drawn = MASKS.map((_, mask) => draw(size, bytes, mask));
  return drawn.reduce((kept, one) => (confusion(one) < confusion(kept) ? one : kept));
}

function draw(size: number, bytes: number[], mask: number): Squares {
  const side = size * 4 + 17;
  const rows: (boolean | null)[][] = Array.from({ length: side }, () => Array<boolean | null>(side).fill(null));
  const set = (x: number, y: number, isDark: boolean) => {
    const row = rows[y];
    if (row && x >= 0 && x < side) row[x] = isDark;
  };
  patterns(size, side, set);
  format(side, mask, set);
  if (size >= 7) versionMarks(size, side, set);
  let bit = 0;
  for (const [x, y] of path(side)) {
    if (rows[y]?.[x] !== null) continue;
    const isDark = (((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) === 1;
    set(x, y, isDark !== (MASKS[mask]?.(x, y) ?? false));
    bit += 1;
  }
  return rows.map((row) => row.map((square) => square === true));
}

type Set = (x: number, y: number, isDark: boolean) => void;

// Marks by which a reader finds the code, its squares and its tilt.
function patterns(size: number, side: number, set: Set): void {
  for (let at = 0; at < side; at += 1) {
    set(6, at, at % 2 === 0);
    set(at, 6, at % 2 === 0);
  }
  const alongSide = places(size, side);
  const last = alongSide.length - 1;
  alongSide.forEach((cx, column) =>
    alongSide.forEach((cy, row) => {
      const isCorner = (column === 0 && (row === 0 || row === last)) || (column === last && row === 0);
      if (!isCorner) rings(cx, cy, 2, [0, 2], set);
    }),
  );
  for (const [cx, cy] of [[3, 3], [side - 4, 3], [3, side - 4]] as const) rings(cx, cy, 4, [0, 1, 3], set);
}

function rings(cx: number, cy: number, reach: number, dark: number[], set: Set): void {
  for (let dy = -reach; dy <= reach; dy += 1) {
    for (let dx = -reach; dx <= reach; dx += 1) {
      set(cx + dx, cy + dy, dark.includes(Math.max(Math.abs(dx), Math.abs(dy))));
    }
  }
}

// Where alignment marks have their middles, along either side.
function places(size: number, side: number): number[] {
  if (size === 1) return [];
  const marks = Math.floor(size / 7) + 2;
  const step = size === 32 ? 26 : Math.ceil((side - 13) / (marks * 2 - 2)) * 2;
  return [6, ...Array.from({ length: marks - 1 }, (_, at) => side - 7 - (marks - 2 - at) * step)];
}

// Level and mask, twice, with their own check bits.
function format(side: number, mask: number, set: Set): void {
  const data = (LOWEST_LEVEL << 3) | mask;
  let rest = data;
  for (let at = 0; at < 10; at += 1) rest = (rest << 1) ^ ((rest >> 9) * 0x537);
  const bits = ((data << 10) | rest) ^ 0x5412;
  const isSet = (at: number) => ((bits >> at) & 1) === 1;
  for (let at = 0; at < 15; at += 1) {
    const near = at < 6 ? at : at < 8 ? at + 1 : 14 - at; // the timing line lies in between
    if (at < 8) set(8, near, isSet(at));
    else set(at === 8 ? 7 : near, 8, isSet(at));
    if (at < 8) set(side - 1 - at, 8, isSet(at));
    else set(8, side - 15 + at, isSet(at));
  }
  set(8, side - 8, true);
}

// The size, twice, in codes that are too large to be measured.
function versionMarks(size: number, side: number, set: Set): void {
  let rest = size;
  for (let at = 0; at < 12; at += 1) rest = (rest << 1) ^ ((rest >> 11) * 0x1f25);
  const bits = (size << 12) | rest;
  for (let at = 0; at < 18; at += 1) {
    const isDark = ((bits >> at) & 1) === 1;
    const far = side - 11 + (at % 3);
    set(far, Math.floor(at / 3), isDark);
    set(Math.floor(at / 3), far, isDark);
  }
}

// Two columns at a time, from the right, up and down in turn.
function* path(side: number): Generator<[number, number]> {
  let isUp = true;
  for (let right = side - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5; // the timing line
    for (let at = 0; at < side; at += 1) {
      const y = isUp ? side - 1 - at : at;
      yield [right, y];
      yield [right - 1, y];
    }
    isUp = !isUp;
  }
}

// Long runs, large squares of one colour and much more of one than the other are hard to read.
function confusion(rows: Squares): number {
  const side = rows.length;
  const columns = rows.map((_, x) => rows.map((row) => row[x] ?? false));
  let points = 0;
  for (const line of [...rows, ...columns]) {
    for (let at = 1, run = 1; at <= side; at += 1) {
      if (at < side && line[at] === line[at - 1]) run += 1;
      else {
        if (run >= 5) points += run - 2;
        run = 1;
      }
    }
  }
  for (let y = 1; y < side; y += 1) {
    for (let x = 1; x < side; x += 1) {
      const one = rows[y]?.[x];
      if (one === rows[y - 1]?.[x] && one === rows[y]?.[x - 1] && one === rows[y - 1]?.[x - 1]) points += 3;
    }
  }
  const dark = rows.flat().filter(Boolean).length / (side * side);
  return points + Math.floor(Math.abs(dark - 0.5) * 20) * 10;
}
