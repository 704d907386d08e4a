// Search where pages are opened from disk: browsers start no worker there, so a hidden frame does its work.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inside = this.frame.contentWindow
      inside.document.open()
      inside.document.write("<!doctype html><body></body>")
      inside.document.close()
      const within = this.frame.contentWindow
      within.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      within.importScripts = (...urls) => Promise.all(urls.map(script => load(within, script)))
      this.ready = load(within, url)
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }

  function load(within, url) {
    return new Promise((resolve, reject) => {
      const script = within.document.createElement("script")
      script.src = String(url)
      script.onload = resolve
      script.onerror = reject
      within.document.body.appendChild(script)
    })
  }
}
