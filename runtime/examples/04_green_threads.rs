//! Example 4: two green threads, which are coroutines with a scheduler.
//!
//! Example 3 said by hand who goes on. Here the scheduler decides: whoever would wait, for a
//! message or for time to pass, is suspended, and another one runs. All of it happens on one OS
//! thread, so the two may share a plain `Rc<Cell<_>>`.

use runtime::sync::mpsc;
use runtime::thread;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

fn main() {
    let shouts = runtime::run(|| {
        let shouts = Rc::new(Cell::new(0));
        let (ball, catch) = mpsc::channel::<&str>();
        let (answer, catch_answer) = mpsc::channel::<&str>();

        // No `move` of anything `Send` is asked for: a green thread stays where it was spawned.
        let counted = Rc::clone(&shouts);
        let pong = thread::spawn(move || {
            // This waits without blocking: the other green thread runs meanwhile.
            for word in catch {
                println!("        {word}? pong!");
                counted.set(counted.get() + 1);
                if answer.send("pong").is_err() {
                    break;
                }
            }
        });

        let counted = Rc::clone(&shouts);
        let ping = thread::spawn(move || {
            for _ in 0..3 {
                println!("ping!");
                counted.set(counted.get() + 1);
                ball.send("ping")
                    .expect("pong listens until the ball is dropped");
                catch_answer.recv().expect("pong answers every ball");
                thread::sleep(Duration::from_millis(10));
            }
            // The ball is dropped here, which ends the loop of the other one.
        });

        ping.join().expect("ping does not panic");
        pong.join().expect("pong does not panic");
        shouts.get()
    });
    println!("{shouts} shouts on one OS thread, and no lock");
}
