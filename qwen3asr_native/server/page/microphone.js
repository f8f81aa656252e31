// The microphone as blocks of 16-bit samples.

/** Calls `take(Int16Array)` with what is said until `stop()`; `rate` is in Hz. */
export async function openMicrophone(take) {
  const media = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const context = new AudioContext();
  await context.audioWorklet.addModule("page/worklet.js");
  const source = context.createMediaStreamSource(media);
  const node = new AudioWorkletNode(context, "samples", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  node.port.onmessage = (event) => take(event.data);
  source.connect(node);
  await context.resume();
  return {
    rate: Math.round(context.sampleRate),
    stop: async () => {
      source.disconnect();
      for (const track of media.getTracks()) track.stop();
      if (context.state !== "closed") await context.close();
    },
  };
}

/** A WAV file of blocks of 16-bit samples. */
export function wavOf(blocks, rate) {
  const size = blocks.reduce((sum, block) => sum + block.byteLength, 0);
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((sign, i) => head.setUint8(at + i, sign.charCodeAt(0)));
  text(0, "RIFF"); head.setUint32(4, 36 + size, true); text(8, "WAVEfmt ");
  head.setUint32(16, 16, true); head.setUint16(20, 1, true); head.setUint16(22, 1, true);
  head.setUint32(24, rate, true); head.setUint32(28, 2 * rate, true); head.setUint16(32, 2, true); head.setUint16(34, 16, true);
  text(36, "data"); head.setUint32(40, size, true);
  return new File([head, ...blocks], "recording.wav", { type: "audio/wav" });
}
