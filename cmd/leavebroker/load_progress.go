package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

// loadProgress tells how far each long part of a load has come: a bar on a
// terminal, a line now and then elsewhere.
type loadProgress struct {
	out      io.Writer
	terminal bool

	mu          sync.Mutex
	bar         *progressbar.ProgressBar // on a terminal
	what        string
	done, all   int
	begin, told time.Time
}

// loadProgressInterval is the time between two lines off a terminal.
const loadProgressInterval = 10 * time.Second

func newLoadProgress(out io.Writer) *loadProgress {
	f, ok := out.(*os.File)
	return &loadProgress{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// start begins a part of so many things.
func (p *loadProgress) start(what string, all int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.done, p.all, p.begin = what, 0, all, time.Now()
	p.told = p.begin
	if p.terminal {
		p.bar = progressbar.NewOptions(all, progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish())
	}
}

// add tells that so many more are done.
func (p *loadProgress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.bar != nil {
		_ = p.bar.Add(n) // no progress is no failure
		return
	}
	if now := time.Now(); now.Sub(p.told) >= loadProgressInterval {
		p.told = now
		fmt.Fprintf(p.out, "%s: %d of %d, %.0f a second\n", p.what, p.done, p.all, float64(p.done)/now.Sub(p.begin).Seconds())
	}
}

// parallel does n things, at most so many at a time, and tells how far it has
// come. After a failure it begins no more.
func (p *loadProgress) parallel(what string, n, atOnce int, do func(i int) error) error {
	if n == 0 {
		return nil
	}
	p.start(what, n)
	var working errgroup.Group
	working.SetLimit(atOnce)
	failed := make(chan struct{})
	var once sync.Once
	for i := range n {
		select {
		case <-failed:
			return working.Wait()
		default:
		}
		working.Go(func() error {
			err := do(i)
			if err != nil {
				once.Do(func() { close(failed) })
			}
			p.add(1)
			return err
		})
	}
	return working.Wait()
}

// loadCores is how much of MLS is worked on at a time.
func loadCores() int { return 4 * runtime.GOMAXPROCS(0) }
