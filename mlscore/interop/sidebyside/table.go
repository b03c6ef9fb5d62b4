package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"leavebroker/mlscore/mlstest/biggroup"
)

// printMachine prints what was measured on what.
func printMachine(w io.Writer, peers bool) {
	fmt.Fprintf(w, "machine      %s\n", machine())
	fmt.Fprintf(w, "leavebroker  %s, crypto/ed25519\n", runtime.Version())
	if !peers {
		return
	}
	v := lockedVersions()
	fmt.Fprintf(w, "mls-rs       %s, mls-rs-crypto-awslc %s, aws-lc-sys %s\n", v["mls-rs"], v["mls-rs-crypto-awslc"], v["aws-lc-sys"])
	fmt.Fprintf(w, "openmls      %s, openmls_rust_crypto %s, ed25519-dalek %s\n", v["openmls"], v["openmls_rust_crypto"], v["ed25519-dalek"])
	if out, err := exec.Command("rustc", "--version").Output(); err == nil {
		fmt.Fprintf(w, "rust         %s", out)
	}
}

func machine() string {
	return fmt.Sprintf("%s, %d cores, %s/%s", cpuModel(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(b); err == nil && m != nil {
		return string(m[1])
	}
	return "unknown processor"
}

// lockedVersions reads the versions in Cargo.lock.
func lockedVersions() map[string]string {
	versions := make(map[string]string)
	b, err := os.ReadFile(filepath.Join(crateDir(), "Cargo.lock"))
	if err != nil {
		return versions
	}
	for _, m := range regexp.MustCompile(`name = "(.*)"\nversion = "(.*)"`).FindAllStringSubmatch(string(b), -1) {
		versions[m[1]] = m[2]
	}
	return versions
}

// printTable prints the rows; each group of sizes begins with the tracker.
func printTable(out io.Writer, shape biggroup.Shape, rows []row) {
	fmt.Fprintf(out, "\nMedians; × is the ratio to leavebroker at the same size; trees are %s.\n\n", shape)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "members\t\tcommit\t×\tsignatures\tcommit/signatures\tingest\t×\theap\t×\t")
	var own row
	for _, r := range rows {
		if r.name == "leavebroker" {
			own = r
		}
		fmt.Fprintln(w, strings.Join([]string{
			fmt.Sprint(r.members), r.name,
			duration(r.commit), ratio(r.commit, own.commit),
			duration(r.floor), ratio(r.commit, r.floor),
			duration(r.load), ratio(r.load, own.load),
			fmt.Sprintf("%.1f KiB", float64(r.heap)/1024), ratio(float64(r.heap), float64(own.heap)),
		}, "\t")+"\t")
	}
	w.Flush()
}

func duration(nanos float64) string {
	switch d := time.Duration(nanos); {
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", nanos/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", nanos/1e6)
	}
	return fmt.Sprintf("%.2f s", nanos/1e9)
}

func ratio(a, b float64) string { return fmt.Sprintf("%.2f", a/b) }
