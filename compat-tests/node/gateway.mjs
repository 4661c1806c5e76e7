// A client of the JSON gateway as one writes it with what node brings along; no packages.
//
//   node gateway.mjs URL CA-FILE     (https URL: the same over HTTP/1.1 and over HTTP/2)
//
// It prints one line for each answer: what it asked for, the status, the body. Whoever runs it on two servers
// compares the lines.

import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { request } from 'node:https';

const [url, caFile] = process.argv.slice(2);
const ca = readFileSync(caFile);
const base64 = (text) => Buffer.from(text).toString('base64');

/** The lines of a stream, the last one also when nothing ends it. Whoever stops reading ends the stream. */
async function* lines(stream) {
  let rest = '';
  stream.setEncoding('utf8');
  for await (const piece of stream) {
    const parts = (rest + piece).split('\n');
    rest = parts.pop();
    yield* parts;
  }
  if (rest !== '') yield rest;
}

/** Sends a body over HTTP/1.1; resolves when the answer's head is there, with its lines still to come. */
function overHttp1(path, body) {
  return new Promise((resolve, reject) => {
    const call = request(url + path, { method: 'POST', ca, servername: 'localhost', agent: false }, (answer) => {
      resolve({ status: answer.statusCode, lines: lines(answer) });
    });
    call.on('error', reject);
    call.end(JSON.stringify(body));
  });
}

/** The same as a stream of an HTTP/2 session. */
function overHttp2(session) {
  return (path, body) => new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/json' });
    stream.on('error', reject);
    stream.on('response', (head) => {
      resolve({ status: head[':status'], lines: lines(stream) });
    });
    stream.end(JSON.stringify(body));
  });
}

function report(what, status, line) {
  console.log(`${what}\t${status}\t${line}`);
}

async function ask(send, how, path, body) {
  const answer = await send(path, body);
  for await (const line of answer.lines) report(`${how} ${path}`, answer.status, line);
}

/** Watches a key; one more event is made when its history has come: before, it would come with it or after it. */
async function watch(send, how, key) {
  const answer = await send('/v3/watch', { create_request: { key: base64(key), start_revision: '1' } });
  let seen = 0;
  for await (const line of answer.lines) {
    report(`${how} watch`, answer.status, line);
    seen += 1;
    if (seen === 2) await ask(send, how, '/v3/kv/put', { key: base64(key), value: base64('while watched') });
    if (line.includes(base64('while watched'))) break;
  }
}

async function everything(send, how) {
  const key = `node/${how}`;
  await ask(send, how, '/v3/kv/put', { key: base64(key), value: base64('größer') });
  await ask(send, how, '/v3/kv/range', { key: base64(key) });
  await ask(send, how, '/v3/kv/range', { key: base64('node/'), range_end: base64('node0'), count_only: true });
  await ask(send, how, '/v3/kv/txn', {
    compare: [{ key: base64(key), target: 'VERSION', version: '1' }],
    success: [{ request_put: { key: base64(key), value: base64('2') } }],
    failure: [{ request_range: { key: base64(key) } }],
  });
  await ask(send, how, '/v3/kv/put', { key: 'no base64!' });
  await ask(send, how, '/v3/nowhere', {});
  await watch(send, how, key);
  await ask(send, how, '/v3/kv/deleterange', { key: base64(key), prev_kv: true });
}

await everything(overHttp1, 'HTTP/1.1');
const session = connect(url, { ca, servername: 'localhost' });
await everything(overHttp2(session), 'HTTP/2');
session.close();
