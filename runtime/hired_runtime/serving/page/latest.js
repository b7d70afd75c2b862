/** Work that is asked for faster than it is done: one at a time, and of what waits only the latest. */

export class Latest {
  #waiting = null;
  #running = false;

  /** Resolves when nothing is running. */
  idle = Promise.resolve();

  /**
   * @param work asked -> promise of a result.
   * @param done called with each result and what was asked, in order; the last is always of the latest.
   * @param failed called with an error and what was asked, unless something newer waits.
   */
  constructor(work, done, failed) {
    Object.assign(this, { work, done, failed });
  }

  ask(asked) {
    this.#waiting = asked;
    if (!this.#running) this.idle = this.#run();
  }

  get busy() {
    return this.#running;
  }

  /** Whether something newer waits. */
  get overtaken() {
    return this.#waiting !== null;
  }

  async #run() {
    this.#running = true;
    while (this.#waiting !== null) {
      const asked = this.#waiting;
      this.#waiting = null;
      try {
        this.done(await this.work(asked), asked);
      } catch (error) {
        if (this.#waiting === null) this.failed(error, asked);
      }
    }
    this.#running = false;
  }
}
