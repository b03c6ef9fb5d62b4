package natstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Disk is a small ext4 file system of its own on an image file. It can be
// full, and its power can be cut: it is then what had reached the image. It
// takes a Linux machine on which the test may mount.
type Disk struct {
	t     testing.TB
	dir   string
	image string
}

// NewDisk mounts a disk for the test, which is skipped where that is not
// possible.
func NewDisk(t testing.TB, bytes int64) *Disk {
	t.Helper()
	dir := t.TempDir()
	d := &Disk{t: t, dir: filepath.Join(dir, "disk"), image: filepath.Join(dir, "image")}
	if err := d.make(bytes); err != nil {
		t.Skipf("no disk of its own for full disks and power cuts: %v", err)
	}
	t.Cleanup(d.unmount)
	return d
}

func (d *Disk) make(bytes int64) error {
	if err := errors.Join(os.Mkdir(d.dir, 0o700), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, bytes)); err != nil {
		return err
	}
	if err := run("mkfs.ext4", "-q", "-F", "-m", "0", d.image); err != nil {
		return err
	}
	return run("mount", "-o", "loop", d.image, d.dir)
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// Path is the folder where the disk is.
func (d *Disk) Path() string { return d.dir }

func (d *Disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// Fill leaves no room on the disk.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.Create(d.ballast())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 16
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
}

// Free makes room again.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.t.Fatal(err)
	}
}

// CutPower brings the disk back as it would be found after a power cut at this
// instant. Whoever writes to it is frozen before; end ends them.
func (d *Disk) CutPower(end func()) {
	d.t.Helper()
	found := d.image + ".found"
	if err := run("cp", "--sparse=always", d.image, found); err != nil {
		d.t.Fatal(err)
	}
	end()
	d.unmount()
	if err := errors.Join(os.Rename(found, d.image), run("mount", "-o", "loop", d.image, d.dir)); err != nil {
		d.t.Fatal(err)
	}
}

// unmount takes the disk away; those who have just ended may still hold it.
func (d *Disk) unmount() {
	var err error
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		if err = run("umount", d.dir); err == nil {
			return
		}
	}
	d.t.Fatal(err)
}
