// Players that switch between sounds at the same position, and buttons that copy text.
(() => {
  const kept = {}; // state of each player by its name, while the page draws it anew

  const clock = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds || 0));
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  };

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  class ABPlayer extends HTMLElement {
    static observedAttributes = ["data-tracks"];

    connectedCallback() {
      this.index ??= -1;
      this.update();
      this.timer = setInterval(() => {
        if (!this.contains(this.play)) this.update(); // the page drew its content anew
        this.show();
      }, 100);
    }

    disconnectedCallback() {
      clearInterval(this.timer);
      kept[this.dataset.name] = this.state();
      this.stop();
    }

    attributeChangedCallback(name, before) {
      if (before !== null && this.isConnected) this.update();
    }

    state() {
      const focus = this.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      const sound = this.sounds[this.index];
      const { label } = this.tracks[this.index];
      return { label, time: sound.currentTime, playing: !sound.paused, focus };
    }

    update() {
      const state = this.play ? this.state() : kept[this.dataset.name];
      const known = new Map((this.sounds || []).map((sound) => [sound.getAttribute("src"), sound]));
      this.tracks = JSON.parse(this.dataset.tracks);
      // Sounds outside of the document play on while the page changes.
      this.sounds = this.tracks.map((track) => known.get(track.src) || this.sound(track));
      for (const [src, sound] of known) {
        if (!this.tracks.some((track) => track.src === src)) sound.pause();
      }
      const same = state ? this.tracks.findIndex((track) => track.label === state.label) : -1;
      this.index = same >= 0 ? same : Math.min(1, this.tracks.length - 1);
      this.build();
      const sound = this.sounds[this.index];
      if (state && same >= 0 && ![...known.values()].includes(sound)) {
        sound.currentTime = state.time;
        if (state.playing) sound.play().catch(() => {});
      }
      if (state?.focus) this.querySelector(`[data-key=${state.focus}]`)?.focus();
      this.show();
    }

    sound(track) {
      const sound = make("audio", { src: track.src, preload: "auto" });
      sound.addEventListener("ended", () => { sound.currentTime = 0; });
      return sound;
    }

    build() {
      this.play = make("button", { type: "button", class: "ab-play", "data-key": "play" });
      this.play.addEventListener("click", () => this.toggle());
      this.seek = make("input", {
        type: "range", min: 0, max: 1000, value: 0, "aria-label": "Position", "data-key": "seek",
      });
      this.seek.addEventListener("input", () => this.move(this.seek.value / 1000 * this.length()));
      this.time = make("span", { class: "ab-time" });
      this.buttons = this.tracks.map((track, index) => {
        const key = make("kbd", { "aria-hidden": "true" }, String(index + 1));
        const button = make(
          "button", { type: "button", class: "ab-track", "data-key": `track${index}` },
          make("span", {}, track.label), key,
        );
        button.addEventListener("click", () => this.choose(index));
        return button;
      });
      const group = make("div", { class: "ab-tracks", role: "group", "aria-label": "Listen to" });
      group.append(...this.buttons);
      const bar = make("div", { class: "ab-bar" });
      bar.append(this.play, this.seek, this.time);
      this.figures = this.tracks.map((track, index) => this.figure(track, index));
      this.replaceChildren(group, bar, ...this.figures.filter(Boolean));
      this.onkeydown = (event) => {
        const number = Number(event.key) - 1;
        if (number >= 0 && number < this.tracks.length && !event.ctrlKey && !event.metaKey) {
          this.choose(number);
          event.preventDefault();
        }
      };
    }

    figure(track, index) {
      if (!track.picture) return null;
      const image = make("img", {
        src: track.picture,
        alt: `Spectrogram of ${track.label}: time from left to right, pitch upwards; the line is the melody`,
      });
      const cursor = make("span", { class: "ab-cursor" });
      const holder = make("div", { class: "ab-picture" }, image, cursor);
      const [left, right] = track.frame;
      holder.addEventListener("click", (event) => {
        const box = holder.getBoundingClientRect();
        const share = ((event.clientX - box.left) / box.width - left) / (right - left);
        this.choose(index);
        this.move(Math.min(1, Math.max(0, share)) * track.seconds);
      });
      return make("figure", {}, make("figcaption", {}, track.label), holder);
    }

    length() {
      const known = this.sounds[this.index].duration;
      return Number.isFinite(known) ? known : this.tracks[this.index].length || 0;
    }

    toggle() {
      const sound = this.sounds[this.index];
      if (!sound.paused) { sound.pause(); this.show(); return; }
      document.querySelectorAll("ab-player").forEach((other) => { if (other !== this) other.stop(); });
      sound.play().catch(() => {});
      this.show();
    }

    stop() {
      this.sounds?.forEach((sound) => sound.pause());
    }

    choose(index) {
      if (index === this.index) return;
      const before = this.sounds[this.index];
      const playing = !before.paused;
      const time = before.currentTime;
      before.pause();
      this.index = index;
      const sound = this.sounds[index];
      sound.currentTime = time;
      if (playing) sound.play().catch(() => {});
      this.show();
    }

    move(seconds) {
      this.sounds[this.index].currentTime = seconds;
      this.show();
    }

    show() {
      const sound = this.sounds[this.index];
      const length = this.length();
      const playing = !sound.paused;
      this.play.textContent = playing ? "❚❚" : "▶";
      this.play.setAttribute("aria-label", playing ? "Pause" : "Play");
      if (document.activeElement !== this.seek || playing) {
        this.seek.value = length ? sound.currentTime / length * 1000 : 0;
      }
      this.seek.setAttribute("aria-valuetext", `${clock(sound.currentTime)} of ${clock(length)}`);
      this.time.textContent = `${clock(sound.currentTime)} / ${clock(length)}`;
      this.buttons.forEach((button, index) => {
        button.setAttribute("aria-pressed", String(index === this.index));
      });
      this.figures.forEach((figure, index) => {
        if (!figure) return;
        const track = this.tracks[index];
        const [left, right] = track.frame;
        const share = Math.min(1, sound.currentTime / track.seconds);
        figure.querySelector(".ab-cursor").style.left = `${100 * (left + share * (right - left))}%`;
        figure.classList.toggle("ab-chosen", index === this.index);
      });
    }
  }
  if (!customElements.get("ab-player")) customElements.define("ab-player", ABPlayer);

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const text = button.closest(".recipe").querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.closest(".recipe").querySelector("code"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
})();
