package main

import (
	"errors"
	"fmt"
	"slices"
)

const (
	batchLen = 10 // commits of one engine before the next has its turn
	warmUp   = 2  // batches that do not count
	loads    = 3
)

// row is what one engine needs at one size: medians.
type row struct {
	members             int
	name                string
	commit, floor, load float64 // nanoseconds
	heap                int64   // bytes
}

// contender is an engine and its times.
type contender struct {
	engine
	name                 string
	commit, floors, load []int64
	heap                 int64
}

// compare runs all engines over a recording. All have to reach the same state.
func compare(path string, members int, binary string) ([]row, error) {
	t, err := newTracker(path)
	if err != nil {
		return nil, err
	}
	own := &contender{engine: t, name: "leavebroker"}
	contenders := []*contender{own}
	if binary != "" {
		p, err := startProcess(binary, path)
		if err != nil {
			return nil, err
		}
		defer p.stop()
		for _, name := range []string{"mls-rs", "openmls"} {
			contenders = append(contenders, &contender{engine: peer{p, name}, name: name})
		}
	}
	for range loads {
		if err := alternate(contenders, (*contender).runLoad); err != nil {
			return nil, err
		}
	}
	for batch := range len(t.commits) / batchLen {
		if err := alternate(contenders, func(c *contender) (answer, error) { return c.runBatch(batch >= warmUp) }); err != nil {
			return nil, err
		}
		contenders = append(contenders[1:], contenders[0]) // the next begins
	}
	if own.heap, err = t.heap(); err != nil {
		return nil, err
	}
	if binary != "" {
		if err := countHeaps(contenders, binary, path); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(contenders, func(a, b *contender) int { return order(a) - order(b) })
	var rows []row
	for _, c := range contenders {
		rows = append(rows, row{members, c.name, median(c.commit), median(c.floors), median(c.load), c.heap})
	}
	return rows, nil
}

// order is the place of an engine in the table.
func order(c *contender) int {
	return slices.Index([]string{"leavebroker", "mls-rs", "openmls"}, c.name)
}

// alternate gives each engine its turn, and compares where they are after it.
func alternate(contenders []*contender, turn func(*contender) (answer, error)) error {
	var first answer
	for i, c := range contenders {
		a, err := turn(c)
		if err != nil {
			return err
		}
		if i == 0 {
			first = a
		} else if !a.sameState(&first) {
			return fmt.Errorf("%s and %s disagree: %+v and %+v", contenders[0].name, c.name, first, a)
		}
	}
	return nil
}

func (c *contender) runLoad() (answer, error) {
	a, err := c.engine.load()
	c.load = append(c.load, a.Nanos...)
	return a, err
}

// runBatch follows a batch and then verifies its signatures alone.
func (c *contender) runBatch(counts bool) (answer, error) {
	a, err := c.follow(batchLen)
	if err != nil {
		return a, err
	}
	f, err := c.floor(batchLen)
	if counts {
		c.commit = append(c.commit, a.Nanos...)
		c.floors = append(c.floors, f.Nanos...)
	}
	return a, err
}

// countHeaps asks a process of its own, because counting costs time. The second
// load counts: the first also fills what the libraries keep for ever.
func countHeaps(contenders []*contender, binary, path string) error {
	p, err := startProcess(binary, path, "--count")
	if err != nil {
		return err
	}
	for _, c := range contenders {
		if _, isPeer := c.engine.(peer); !isPeer {
			continue
		}
		for range 2 {
			a, err := peer{p, c.name}.load()
			if err != nil {
				return errors.Join(err, p.stop())
			}
			c.heap = a.Heap
		}
	}
	return p.stop()
}

func median(list []int64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return float64(list[len(list)/2])
}
