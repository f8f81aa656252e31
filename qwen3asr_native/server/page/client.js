// The server's API: a stream of events for a file, a WebSocket for live speech.

const PREFIX = "conversation.item.input_audio_transcription.";

export class ServerError extends Error {}

const authorized = (key) => (key ? { authorization: `Bearer ${key}` } : {});

async function failure(response) {
  const told = await response.json().catch(() => null);
  return new ServerError(told?.error?.message ?? `${response.status} ${response.statusText}`);
}

/** Events of a transcription as they come; throws ServerError with the server's sentence. */
export async function* transcribe(file, options, signal) {
  const form = new FormData();
  form.set("response_format", "verbose_json");
  form.set("stream", "true");
  form.append("timestamp_granularities[]", "segment");
  if (options.words) form.append("timestamp_granularities[]", "word");
  if (options.language) form.set("language", options.language);
  if (options.context) form.set("prompt", options.context);
  if (options.script) form.set("script", options.script);
  if (options.itn) form.set("itn", "true");
  form.set("file", file);
  const response = await fetch("v1/audio/transcriptions", { method: "POST", body: form, headers: authorized(options.key), signal });
  if (!response.ok) throw await failure(response);
  let held = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    held += part.value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const told = JSON.parse(event.slice("data: ".length));
      if (told.error) throw new ServerError(told.error.message);
      yield told;
    }
  }
}

/** Subtitles of segments in a format. */
export async function subtitles(segments, format, key) {
  const headers = { "content-type": "application/json", ...authorized(key) };
  const response = await fetch(`v1/subtitles?format=${format}`, { method: "POST", body: JSON.stringify({ segments }), headers });
  if (!response.ok) throw await failure(response);
  return response.text();
}

/** A live session; `on` has the functions tail(text), segment(segment), error(message), closed(). */
export function openLive(rate, options, on) {
  const protocols = ["realtime", ...(options.key ? [`openai-insecure-api-key.${options.key}`] : [])];
  const address = new URL("v1/realtime?intent=transcription", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, protocols);
  const waiting = [];
  const send = (type, fields) => {
    const event = JSON.stringify({ type, ...fields });
    if (socket.readyState === WebSocket.CONNECTING) waiting.push(event);
    else if (socket.readyState === WebSocket.OPEN) socket.send(event);
  };
  socket.onopen = () => waiting.splice(0).forEach((event) => socket.send(event));
  socket.onclose = () => on.closed();
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.type === `${PREFIX}hypothesis`) on.tail(event.text);
    else if (event.type === `${PREFIX}completed`) on.segment({ start: event.start, end: event.end, text: event.transcript });
    else if (event.type === "error" || event.type === `${PREFIX}failed`) on.error(event.error.message);
    else if (event.type === "input_audio_buffer.cleared") socket.close();
  };
  const { language, context: prompt, script, itn } = options;
  send("session.update", {
    session: {
      type: "transcription",
      audio: { input: { format: { type: "audio/pcm", rate }, transcription: { language, prompt, script, itn }, turn_detection: { type: "server_vad" } } },
      include: ["item.input_audio_transcription.hypothesis"],
    },
  });
  return {
    append: (samples) => {
      const bytes = new Uint8Array(samples.buffer);
      send("input_audio_buffer.append", { audio: btoa(String.fromCharCode(...bytes)) });
    },
    // The server answers in order: once the buffer is cleared, everything before it has been told.
    finish: () => { send("input_audio_buffer.commit"); send("input_audio_buffer.clear"); },
  };
}
