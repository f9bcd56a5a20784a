// Live playing: microphone -> audio thread -> worker -> server, and back to the loudspeaker.
window.livePlay = (() => {
  // On the audio thread. An answer is played `margin` samples after the sound that it answers; the
  // delay is constant, and an answer that comes later becomes silence.
  const soundCode = () => {
    registerProcessor("live-sound", class extends AudioWorkletProcessor {
      constructor({ processorOptions: { block, margin } }) {
        super();
        this.margin = margin;
        this.block = new Float32Array(block);
        this.filled = 0;
        this.position = 0; // samples from the microphone
        this.ring = new Float32Array(margin + 2 * block);
        this.received = 0; // samples from the server
        this.late = 0;
        this.gap = false;
        this.levels = [0, 0];
        this.port.onmessage = ({ data }) => {
          this.server = data;
          this.server.onmessage = ({ data: answer }) => this.receive(new Float32Array(answer));
        };
      }

      receive(answer) {
        for (const sample of answer) this.ring[this.received++ % this.ring.length] = sample;
      }

      process([microphone], [loudspeaker]) {
        if (!this.server) return true;
        const heard = microphone[0];
        const played = loudspeaker[0];
        for (let i = 0; i < played.length; i += 1) {
          const sample = heard ? heard[i] : 0;
          this.block[this.filled++] = sample;
          if (this.filled === this.block.length) {
            const full = this.block.slice();
            this.server.postMessage(full.buffer, [full.buffer]);
            this.filled = 0;
          }
          const due = this.position - this.margin;
          const missing = due >= this.received;
          if (missing && !this.gap) this.late += 1;
          this.gap = missing;
          played[i] = due < 0 || missing ? 0 : this.ring[due % this.ring.length];
          this.position += 1;
          this.levels[0] = Math.max(this.levels[0] * 0.9999, Math.abs(sample));
          this.levels[1] = Math.max(this.levels[1] * 0.9999, Math.abs(played[i]));
        }
        for (let i = 1; i < loudspeaker.length; i += 1) loudspeaker[i].set(played);
        if (this.position % 8192 < played.length) {
          this.port.postMessage({ late: this.late, levels: this.levels });
        }
        return true;
      }
    });
  };

  // In a worker, so that a busy page delays no sound.
  const connectionCode = () => {
    const MOST = 2000000; // bytes that wait: about ten seconds
    let socket;
    self.onmessage = ({ data, ports }) => {
      if (data.address) {
        socket = new WebSocket(data.address);
        socket.binaryType = "arraybuffer";
        socket.onopen = () => socket.send(JSON.stringify(data.settings));
        socket.onclose = () => self.postMessage({ state: "closed" });
        socket.onmessage = (event) => {
          if (typeof event.data === "string") self.postMessage(JSON.parse(event.data));
          else self.sound?.postMessage(event.data, [event.data]);
        };
      } else if (data.sound) {
        [self.sound] = ports;
        self.sound.onmessage = ({ data: block }) => {
          if (socket.bufferedAmount > MOST) {
            self.postMessage({ state: "ended", problem: "The connection is too slow for live sound." });
          } else if (socket.readyState === WebSocket.OPEN) socket.send(block);
        };
      } else if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(data));
    };
  };

  const addressOf = (code) => URL.createObjectURL(
    new Blob([`(${code})()`], { type: "text/javascript" }),
  );

  const REFUSED = {
    NotAllowedError: "The browser refused the microphone. Allow it for this page (beside the address), and press Start again.",
    NotFoundError: "There is no microphone. Connect one, and press Start again.",
    NotReadableError: "The microphone cannot be opened. Close other programs that use it, and press Start again.",
  };
  const INSECURE = "The browser gives the microphone only to pages with HTTPS, and to pages on its own machine. "
    + "Open this page on the machine that runs it, at the address localhost, or serve it through HTTPS.";

  const REMEDY = "Press Stop, and change it under More settings.";

  let session = null;
  const shown = { text: "Press Start. The browser asks for the microphone.", problem: "", warning: "" };

  const show = (changes) => {
    Object.assign(shown, changes);
    const panel = document.querySelector("live-panel");
    panel?.show();
    const playing = session !== null;
    for (const [name, disabled] of [["start", playing || !panel?.dataset.address], ["stop", !playing]]) {
      const button = document.querySelector(`#live-${name}`);
      if (button) button.disabled = disabled;
    }
  };

  const release = (one) => {
    one.stream?.getTracks().forEach((track) => { track.onended = null; track.stop(); });
    one.worker?.terminate(); // closes the connection
    one.context?.close().catch(() => {});
  };

  const end = (one, text, problem = "") => {
    if (session !== one) return;
    session = null;
    release(one);
    show({ text, problem, figures: null });
  };

  const microphone = async () => {
    if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) throw new Error(INSECURE);
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    try {
      return await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new Error(REFUSED[error.name] || `The microphone cannot be opened: ${error.message}`);
    }
  };

  const ready = async (one, { delay, margin, block }) => {
    const { context, stream } = one;
    one.node = new AudioWorkletNode(context, "live-sound", {
      outputChannelCount: [2], processorOptions: { block, margin },
    });
    one.input = context.createMediaStreamSource(stream);
    const { port1, port2 } = new MessageChannel();
    one.worker.postMessage({ sound: true }, [port1]);
    one.node.port.postMessage(port2, [port2]);
    one.node.port.onmessage = ({ data }) => {
      one.sound = data;
      if (session === one) show({});
    };
    one.input.connect(one.node).connect(context.destination);
    one.delay = { models: delay, page: margin / context.sampleRate };
    await context.resume();
    if (session === one) show({ text: "Playing. Play into the microphone.", figures: one });
  };

  const receive = (one, message) => {
    if (session !== one) return;
    if (message.state === "waiting") show({ text: `${message.text} …` });
    else if (message.state === "ready") {
      ready(one, message).catch((error) => end(one, "Stopped.", `The sound cannot start: ${error.message}`));
    } else if (message.state === "playing") {
      one.state = message;
      show({ warning: message.warning });
    } else {
      const lost = "The connection to the page's program is lost. Load this page again.";
      const problem = message.state === "closed" ? lost : message.problem || "";
      end(one, problem ? "" : "Stopped.", problem);
    }
  };

  const start = async (names, values) => {
    if (session) return;
    const one = {};
    session = one;
    show({ text: "Waiting for the microphone …", problem: "", warning: "", figures: null });
    try {
      one.context = new AudioContext({ latencyHint: "interactive" });
      one.stream = await microphone();
      if (session !== one) { release(one); return; }
      one.stream.getTracks().forEach((track) => {
        track.onended = () => end(one, "", "The microphone is gone. Connect it, and press Start again.");
      });
      await one.context.audioWorklet.addModule(addressOf(soundCode));
    } catch (error) {
      end(one, "", error.message);
      return;
    }
    if (session !== one) { release(one); return; }
    const settings = Object.fromEntries(names.map((name, index) => [name, values[index]]));
    settings.rate = one.context.sampleRate;
    one.source = settings.source === "auto" ? "not yet recognised" : `${settings.source}, as chosen`;
    const address = new URL(document.querySelector("live-panel").dataset.address, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    one.worker = new Worker(addressOf(connectionCode));
    one.worker.onmessage = ({ data }) => receive(one, data);
    one.worker.postMessage({ address: address.href, settings });
    show({ text: "Starting …" });
  };

  const stop = () => { if (session) end(session, "Stopped."); };

  const mix = (share) => { session?.worker?.postMessage({ wet: share }); };

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  const seconds = (value) => `${value.toFixed(2)} s`;

  // Delay in words: what is known, and what the browser reports about its devices.
  const describeDelay = ({ delay, context, stream }) => {
    const [track] = stream.getAudioTracks();
    const reported = [track.getSettings().latency, context.baseLatency, context.outputLatency];
    const devices = reported.reduce((sum, value) => sum + (value || 0), 0);
    const constant = delay.models + delay.page;
    const parts = `${seconds(delay.models)} for the models and ${seconds(delay.page)} between page and models, both constant`;
    return devices
      ? `${seconds(constant + devices)}: ${parts}; about ${seconds(devices)} in your audio devices, as the browser reports`
      : `${seconds(constant)}: ${parts}; your audio devices add some more, which this browser does not report`;
  };

  class LivePanel extends HTMLElement {
    connectedCallback() {
      show({});
      this.timer = setInterval(() => show({}), 200); // the page may draw its content anew
    }

    disconnectedCallback() { clearInterval(this.timer); }

    build() {
      this.text = make("p", { role: "status", class: "live-text" });
      this.alert = make("div", { role: "alert" });
      this.warn = make("div", { role: "status" });
      this.meters = ["Microphone", "Output"].map((label) => make(
        "meter", { min: "-60", max: "0", low: "-50", high: "-3", optimum: "-12", "aria-label": `Level: ${label}` },
      ));
      this.rows = ["Delay", "Dropouts", "Load", "Your instrument"].map((label) => {
        const value = make("dd");
        return { term: make("dt", {}, label), value };
      });
      const levels = make("div", { class: "live-levels" });
      ["Microphone", "Output"].forEach((label, index) => {
        levels.append(make("span", { "aria-hidden": "true" }, label), this.meters[index]);
      });
      const list = make("dl");
      this.rows.forEach(({ term, value }) => list.append(term, value));
      this.figures = make("div", { class: "card" }, levels, list);
      this.replaceChildren(this.text, this.alert, this.warn, this.figures);
    }

    put(place, kind, sentence) { // only if it changed: a screen reader speaks it again
      if (place.dataset.sentence === sentence) return;
      place.dataset.sentence = sentence;
      place.className = sentence ? kind : "";
      const whole = /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
      place.replaceChildren(...(sentence ? [make("p", {}, make("strong", {}, whole))] : []));
    }

    show() {
      if (!this.text || !this.contains(this.text)) this.build();
      if (this.text.textContent !== shown.text) this.text.textContent = shown.text;
      this.text.hidden = !shown.text;
      this.put(this.alert, "problem", shown.problem);
      this.put(this.warn, "notice", shown.warning && session ? `Too slow: ${shown.warning}. ${REMEDY}` : "");
      const one = shown.figures;
      this.figures.hidden = !one;
      if (!one) return;
      const { state = {}, sound = { late: 0, levels: [0, 0] } } = one;
      this.meters.forEach((meter, index) => {
        meter.value = 20 * Math.log10(Math.max(sound.levels[index], 0.001));
      });
      const dropouts = state.dropouts || 0;
      const texts = [
        describeDelay(one),
        `${dropouts + sound.late}${sound.late ? ` (${sound.late} between page and models)` : ""}`,
        `${Math.round(100 * (state.load || 0))} % of what this machine can compute`,
        state.source || one.source,
      ];
      this.rows.forEach(({ value }, index) => {
        if (value.textContent !== texts[index]) value.textContent = texts[index];
      });
    }
  }
  if (!customElements.get("live-panel")) customElements.define("live-panel", LivePanel);

  return { start, stop, mix, get session() { return session; } };
})();
