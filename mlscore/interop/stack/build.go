package stack

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// The drivers of this repository, each in the folder of its name.
const (
	OpenMLS = "openmls"
	MLSRS   = "mlsrs"
	TSMLS   = "tsmls"
	BCMLS   = "bcmls"
	Davey   = "davey"
)

// Drivers names the drivers.
var Drivers = []string{OpenMLS, MLSRS, TSMLS, BCMLS, Davey}

// Driver is a driver that was built, or is missing for a reason that is not its
// own: then no stack can be started of it.
type Driver struct {
	Name    string
	Missing string // why there is none; empty: it was built

	command []string
}

// Build builds a driver. What the tools say goes to progress. A toolchain that is
// not there, or a registry that does not give what is needed, makes the driver
// Missing; anything else that fails is an error.
func Build(name string, progress io.Writer) (*Driver, error) {
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "..", name)
	d := &Driver{Name: name}
	build := d.npm
	switch {
	case exists(dir, "Cargo.toml"):
		build = d.cargo
	case exists(dir, "pom.xml"):
		build = d.maven
	}
	if err := build(dir, progress); err != nil {
		return nil, fmt.Errorf("driver %s: %w", name, err)
	}
	return d, nil
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// Start runs the driver.
func (d *Driver) Start() (Stack, error) {
	if d.Missing != "" {
		return nil, fmt.Errorf("driver %s: %s", d.Name, d.Missing)
	}
	s, err := Start(exec.Command(d.command[0], d.command[1:]...))
	if err != nil {
		return nil, fmt.Errorf("driver %s: %w", d.Name, err)
	}
	return s, nil
}

func (d *Driver) cargo(dir string, progress io.Writer) error {
	if d.lacks("cargo") || d.Name == MLSRS && d.lacksOpenSSL() {
		return nil
	}
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(dir, "target")
	}
	run := tool{dir, []string{"CARGO_TARGET_DIR=" + target}, progress}
	if said, err := run.do("cargo", "fetch", "--locked"); err != nil {
		return d.unreachable(said, err)
	}
	if _, err := run.do("cargo", "build", "--release", "--locked", "--offline"); err != nil {
		return err
	}
	d.command = []string{filepath.Join(target, "release", d.Name+"-driver")}
	return nil
}

func (d *Driver) npm(dir string, progress io.Writer) error {
	if d.lacks("node") || d.lacks("npm") {
		return nil
	}
	d.command = []string{"node", filepath.Join(dir, "main.js")}
	if installed(dir) {
		return nil
	}
	run := tool{dir, nil, progress}
	if said, err := run.do("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		return d.unreachable(said, err)
	}
	return nil
}

// installed says whether npm has installed what the lock file wants: it writes
// its own copy of the file last.
func installed(dir string) bool {
	want, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return false
	}
	have, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	return err == nil && !have.ModTime().Before(want.ModTime())
}

func (d *Driver) maven(dir string, progress io.Writer) error {
	if d.lacks("java") || d.lacks("javac") || d.lacks("mvn") {
		return nil
	}
	run := tool{dir, nil, progress}
	if _, err := run.do("mvn", "-q", "-B", "-o", "compile"); err != nil { // not all is at hand
		if said, err := run.do("mvn", "-q", "-B", "compile"); err != nil {
			return d.unreachable(said, err)
		}
	}
	target := filepath.Join(dir, "target")
	d.command = []string{"java", "-cp", filepath.Join(target, "classes") + ":" + filepath.Join(target, "lib", "*"), "Driver"}
	return nil
}

// lacks says that a program is not installed, and notes it.
func (d *Driver) lacks(program string) bool {
	if _, err := exec.LookPath(program); err != nil {
		d.Missing = fmt.Sprintf("%s is not installed", program)
		return true
	}
	return false
}

// lacksOpenSSL says that the library of mls-rs' cryptography cannot be built
// against, and notes it.
func (d *Driver) lacksOpenSSL() bool {
	if d.lacks("pkg-config") {
		return true
	}
	if err := exec.Command("pkg-config", "--exists", "openssl").Run(); err != nil {
		d.Missing = "the headers of OpenSSL (libssl-dev) are not installed"
		return true
	}
	return false
}

// ownFaults are what tools say where the fault is in the driver's folder.
var ownFaults = []string{"--locked", "npm error code eusage", "npm error code ejsonparse", "compilation error", "non-parseable pom"}

// unreachable notes that what a driver needs cannot be fetched, or gives the
// error back where that is the driver's own fault.
func (d *Driver) unreachable(said []byte, err error) error {
	lower := strings.ToLower(string(said))
	if slices.ContainsFunc(ownFaults, func(sign string) bool { return strings.Contains(lower, sign) }) {
		return err
	}
	d.Missing = fmt.Sprintf("what it needs cannot be fetched: %v", err)
	return nil
}

// tool runs programs in a folder.
type tool struct {
	dir      string
	env      []string
	progress io.Writer
}

func (t tool) do(name string, args ...string) (said []byte, err error) {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = t.dir, append(os.Environ(), t.env...)
	cmd.Stdout = io.MultiWriter(&out, t.progress)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		last := bytes.TrimSpace(out.Bytes())
		if len(last) > tailBytes {
			last = last[len(last)-tailBytes:]
		}
		return out.Bytes(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, last)
	}
	return out.Bytes(), nil
}
