// Appends with emmett's own client, as its users do. A line that is read is a turn: batch, writers, events, round; what is
// answered is how many nanoseconds it took.
import { createInterface } from 'node:readline';
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';

const { BENCH_URL: url, BENCH_DATA: data, BENCH_STREAMS: streams } = process.env;
const store = getPostgreSQLEventStore(url);
await store.schema.migrate();

// Each writer has streams of its own and goes round in them.
async function write(batch, writers, events, round, writer) {
  const own = Math.floor(streams / writers);
  for (let number = 0; number < events / writers / batch; number++) {
    const list = Array.from({ length: batch }, () => ({ type: 'Booked', data: JSON.parse(data) }));
    const expectedStreamVersion = BigInt(Math.floor(number / own) * batch);
    await store.appendToStream(`order-${round}-${writer}-${number % own}`, list, { expectedStreamVersion });
  }
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const [batch, writers, events, round] = line.split(' ').map(Number);
  const began = process.hrtime.bigint();
  await Promise.all(Array.from({ length: writers }, (_, writer) => write(batch, writers, events, round, writer)));
  console.log(String(process.hrtime.bigint() - began));
}
await store.close();
