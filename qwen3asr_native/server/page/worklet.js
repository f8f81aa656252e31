// On the audio thread: gathers a tenth of a second and hands it over as 16-bit samples.
class Samples extends AudioWorkletProcessor {
  block = new Int16Array(Math.round(sampleRate / 10));
  filled = 0;

  process([[channel]]) {
    for (const value of channel ?? []) {
      this.block[this.filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block);
        this.block = new Int16Array(this.block.length);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("samples", Samples);
