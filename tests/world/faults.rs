//! What goes wrong, and when it stops going wrong.

use super::controller::Run;
use super::{Ev, World};

impl World {
    /// One more misfortune, and when the next one comes.
    pub fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let next = self.rng.range(500, 25_000);
        self.after(next, Ev::Fault);
        if self.deadly == 0 && self.rng.percent(70) {
            return; // some worlds are nearly kind
        }
        let node = self.rng.index(self.nodes.len());
        if self.several.is_some() && self.rng.percent(45) {
            return self.fault_of_several();
        }
        match self.rng.range(0, 10) {
            0 | 1 if self.nodes[node].agent.is_some() => self.kill_agent(node, "for no reason"),
            2 => self.power_off(node),
            3 | 4 => self.cut_off(node),
            5 | 6 => {
                self.deed("session broken");
                self.note(|| format!("    n{node}: its sessions break"));
                self.nodes[node].sessions.clear();
            }
            7 => {
                if let Some(ctl) = self.live {
                    self.deed("controller killed");
                    self.kill_controller(ctl, "for no reason");
                }
            }
            8 => self.pause_live(),
            9 => self.kill_some_process(node),
            10 => self.make_anew(node),
            _ => {}
        }
    }

    fn power_off(&mut self, node: usize) {
        if !self.nodes[node].powered {
            return;
        }
        self.deed("power lost");
        self.note(|| format!("    n{node}: its power is gone"));
        let host = &mut self.nodes[node];
        host.powered = false;
        host.agent = None;
        host.sessions.clear();
        for proc in host.procs.values_mut() {
            proc.alive = false;
        }
        self.serves_again(node);
        self.nodes[node].taken_out = false; // not by us any more
        let down = self.rng.range(3_000, 120_000);
        self.after(down, Ev::PowerUp { node });
    }

    fn cut_off(&mut self, node: usize) {
        if self.nodes[node].cut {
            return;
        }
        self.deed("network cut");
        self.note(|| format!("    n{node}: its network is cut"));
        self.nodes[node].cut = true;
        let most = self.rng.pick(&[3_000, 40_000, 300_000]);
        let down = self.rng.range(500, most);
        self.after(down, Ev::Heal { node });
    }

    pub fn heal(&mut self, node: usize) {
        self.note(|| format!("    n{node}: its network is back"));
        self.nodes[node].cut = false;
        self.nodes[node].sessions.clear(); // whatever was in them is lost
    }

    fn pause_live(&mut self) {
        let Some(ctl) = self.live else { return };
        if let Some(controller) = self.controllers.get_mut(&ctl) {
            controller.state = Run::Paused { then: None };
        }
        self.deed("owner paused");
        self.note(|| format!("controller {ctl} stands still"));
        self.live = None;
        let lease = self.rng.range(1_000, 6_000);
        self.after(lease, Ev::ControllerUp);
        let until = self.rng.range(500, 90_000);
        self.after(until, Ev::ControllerResumes { ctl });
    }

    fn kill_some_process(&mut self, node: usize) {
        let alive: Vec<(u64, u64)> = self.nodes[node]
            .procs
            .iter()
            .filter(|(_, proc)| proc.alive)
            .map(|(token, proc)| (*token, proc.start))
            .collect();
        if alive.is_empty() {
            return;
        }
        self.deed("process died");
        let (token, start) = self.rng.pick(&alive);
        self.process_dies(node, token, start);
    }

    /// The faults stop: from now on everything must come to its end.
    pub fn quiet(&mut self) {
        if self.several.is_none() && self.live.is_none_or(|ctl| !self.is_running(ctl)) {
            return self.after(1_000, Ev::Quiet); // nobody is there to hear the operators
        }
        self.note(|| "the faults stop".to_owned());
        self.faulty = false;
        self.quiet_since = self.now;
        if self.several.is_some() {
            self.quiet_of_several();
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].cut {
                self.heal(node);
            }
            if self.store.drained[node] && self.rng.percent(70) {
                self.drain_node(node, false);
            }
        }
        let envs = if self.several.is_some() { self.store.frozen.len() } else { 1 };
        for env in 0..envs {
            self.freeze(env, None);
            self.window(env, None);
        }
        self.edge_goes(false);
    }
}
