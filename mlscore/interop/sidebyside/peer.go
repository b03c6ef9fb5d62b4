package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// crateDir is where the Rust crate is: beside this file.
func crateDir() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Dir(here)
}

// crateBinary is what building the crate makes.
func crateBinary() string { return filepath.Join(crateDir(), "target", "release", "sidebyside") }

// buildCrate builds the crate in release mode and gives the path of its binary;
// none where there is no cargo.
func buildCrate() (string, error) {
	if _, err := exec.LookPath("cargo"); err != nil {
		fmt.Fprintln(os.Stderr, "SKIPPED: there is no cargo in PATH. mls-rs and OpenMLS are NOT measured.")
		return "", nil
	}
	cargo := exec.Command("cargo", "build", "--release", "--locked")
	cargo.Dir, cargo.Stdout, cargo.Stderr = crateDir(), os.Stderr, os.Stderr
	cargo.Env = append(os.Environ(), "CARGO_TARGET_DIR="+filepath.Join(crateDir(), "target"))
	if err := cargo.Run(); err != nil {
		return "", fmt.Errorf("cargo build: %w", err)
	}
	return crateBinary(), nil
}

// process is a run of the crate's binary over one recording.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startProcess(binary string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReader(out)
	return p, p.cmd.Start()
}

// stop ends the process by ending its input.
func (p *process) stop() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }

// peer is an engine inside the process.
type peer struct {
	*process
	name string
}

func (p peer) load() (answer, error)        { return p.ask("load", 1) }
func (p peer) follow(n int) (answer, error) { return p.ask("follow", n) }
func (p peer) floor(n int) (answer, error)  { return p.ask("floor", n) }

// ask sends a command and reads the answer, which has n times.
func (p peer) ask(command string, n int) (answer, error) {
	var a answer
	if _, err := fmt.Fprintln(p.in, p.name, command, n); err != nil {
		return a, err
	}
	reply, err := p.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("%s %s: %w", p.name, command, err)
	}
	if err := json.Unmarshal(reply, &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s %s: %s", p.name, command, a.Error)
	}
	if len(a.Nanos) != n {
		return a, fmt.Errorf("%s %s: %d times instead of %d", p.name, command, len(a.Nanos), n)
	}
	return a, nil
}
