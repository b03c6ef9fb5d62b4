package mlscore

import "sync"

// Parallel calls a task for each i from 0 to n-1, in any order and at the same
// time if it likes, and returns when all have returned. The result of what
// uses one does not depend on it: this package starts no goroutine itself. The
// nil Parallel calls one after another.
type Parallel func(n int, task func(i int))

// check gives the error of the lowest of n checks that fails. Those above it
// need not be made.
func (p Parallel) check(n int, check func(i int) error) error {
	if p == nil {
		for i := range n {
			if err := check(i); err != nil {
				return err
			}
		}
		return nil
	}
	var mu sync.Mutex
	lowest, refused := n, error(nil)
	p(n, func(i int) {
		mu.Lock()
		needed := i < lowest
		mu.Unlock()
		if !needed {
			return
		}
		err := check(i)
		mu.Lock()
		defer mu.Unlock()
		if err != nil && i < lowest {
			lowest, refused = i, err
		}
	})
	return refused
}
