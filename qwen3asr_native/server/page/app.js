import { openLive, ServerError, subtitles, transcribe } from "./client.js";
import { openMicrophone, wavOf } from "./microphone.js";
import { preferred, say, speak } from "./texts.js";

const at = (id) => document.getElementById(id);
const player = at("player");
let about = { languages: [], words: false, limits: {} };
let segments = [];
let text = "";
let name = "transcript";
let stopWork = null; // what the button Stop does

function options() {
  return {
    language: at("language").value, context: at("context").value.trim(), script: at("traditional").checked ? "zh-TW" : "",
    itn: at("itn").checked, key: at("key").value.trim(), words: about.words,
  };
}

// What is shown

const status = (word) => { at("status").textContent = word ? say(word) : ""; };
const fail = (message) => { at("error").textContent = message; status(""); };

function begin(source) {
  segments = [];
  text = "";
  at("error").textContent = "";
  at("segments").replaceChildren();
  at("downloads").hidden = true;
  player.hidden = true;
  if (source) {
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(source);
    player.hidden = false;
  }
  show("");
}

function show(more, tail = "") {
  text += more;
  at("text").replaceChildren(text, at("tail"));
  at("tail").textContent = tail;
}

const clock = (seconds) => {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  return `${whole >= 3600 ? `${Math.floor(whole / 3600)}:` : ""}${parts.join(":")}.${Math.floor(10 * (seconds - whole))}`;
};

function playable(start, label) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.title = `${say("playFrom")} ${clock(start)}`;
  button.dataset.start = start;
  button.disabled = player.hidden;
  button.onclick = () => { player.currentTime = start; player.play(); };
  return button;
}

function addSegment(segment) {
  if (!segment.text) return;
  segments.push(segment);
  const row = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = `${clock(segment.start)} – ${clock(segment.end)}`;
  row.append(time, ...(segment.words ?? [{ start: segment.start, word: segment.text }]).map((word) => playable(word.start, word.word)));
  at("segments").append(row);
}

function addWords(words) {
  if (!words?.length) return;
  const all = segments.map((segment) => ({ ...segment, words: words.filter((word) => word.start >= segment.start && word.start < segment.end) }));
  segments = [];
  at("segments").replaceChildren();
  all.forEach(addSegment);
}

function end() {
  at("downloads").hidden = !text;
  status(text ? "done" : "nothing");
}

function busy(stop, pressed = null) {
  stopWork = stop;
  for (const id of ["record", "live", "file"]) at(id).disabled = stop !== null;
  for (const id of ["record", "live"]) at(id).setAttribute("aria-pressed", String(id === pressed));
  at("stop").hidden = stop === null;
}

// What is done

async function recognize(file) {
  if (file.size > about.limits.bytes) return fail(say("tooLarge") + `${Math.round(about.limits.bytes / 2 ** 20)} MB`);
  name = file.name.replace(/\.[^.]*$/, "") || "transcript";
  at("file-name").textContent = file.name;
  begin(file);
  status("uploading");
  const stop = new AbortController();
  busy(() => stop.abort());
  try {
    for await (const event of transcribe(file, options(), stop.signal)) {
      if (event.type === "transcript.text.delta") { status("recognizing"); show(event.delta); }
      else if (event.type === "transcript.text.segment") addSegment(event);
      else if (event.type === "transcript.text.done") { text = ""; show(event.text); addWords(event.words); end(); }
    }
  } catch (error) {
    if (error.name === "AbortError") { end(); status("stopped"); }
    else fail(error instanceof ServerError ? error.message : say("gone"));
  } finally {
    busy(null);
  }
}

async function microphone(take) {
  try {
    return await openMicrophone(take);
  } catch (error) {
    fail(say("noMicrophone") + error.message);
    return null;
  }
}

async function record() {
  const blocks = [];
  const opened = await microphone((block) => blocks.push(block));
  if (!opened) return;
  begin(null);
  status("recording");
  busy(async () => {
    busy(null);
    await opened.stop();
    await recognize(wavOf(blocks, opened.rate));
  }, "record");
}

async function live() {
  let session = null;
  const blocks = [];
  const opened = await microphone((block) => { blocks.push(block); session?.append(block); });
  if (!opened) return;
  begin(null);
  name = "live";
  status("listening");
  let asked = false;
  session = openLive(opened.rate, options(), {
    tail: (tail) => show("", tail),
    segment: (segment) => { show((text && !/[\u2e80-\uffef]$/.test(text) ? " " : "") + segment.text); addSegment(segment); },
    error: fail,
    closed: async () => {
      await opened.stop();
      busy(null);
      if (!asked) { if (!at("error").textContent) fail(say("closed")); return; }
      const [shown, spoken] = [segments, text];
      begin(wavOf(blocks, opened.rate));
      show(spoken);
      shown.forEach(addSegment);
      end();
    },
  });
  busy(async () => { asked = true; stopWork = null; await opened.stop(); session.finish(); }, "live");
}

async function download(format) {
  const contents = {
    txt: () => `${text}\n`,
    json: () => JSON.stringify({ text, segments }, null, 1),
    srt: () => subtitles(segments, "srt", options().key),
    vtt: () => subtitles(segments, "vtt", options().key),
  };
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await contents[format]()], { type: "text/plain" }));
    link.download = `${name}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    fail(error instanceof ServerError ? error.message : say("gone"));
  }
}

// How it is used

at("file").onchange = (event) => { if (event.target.files.length) recognize(event.target.files[0]); event.target.value = ""; };
at("record").onclick = record;
at("live").onclick = live;
at("stop").onclick = () => stopWork?.();
at("page-language").onchange = (event) => { speak(event.target.value); };
for (const button of document.querySelectorAll("[data-download]")) button.onclick = () => download(button.dataset.download);
const drop = at("drop");
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (!stopWork && event.dataTransfer.files.length) recognize(event.dataTransfer.files[0]);
};
at("key").value = sessionStorage.getItem("key") ?? "";
at("key").onchange = (event) => sessionStorage.setItem("key", event.target.value.trim());

const language = preferred();
at("page-language").value = language;
speak(language);
try {
  about = await (await fetch("about")).json();
  at("model").textContent = about.model;
  at("key-field").hidden = !about.key;
  at("language").append(...about.languages.map((word) => new Option(word, word)));
} catch {
  fail(say("gone"));
}
