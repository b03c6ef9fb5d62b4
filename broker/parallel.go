package broker

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Parallel runs tasks on all cores (mlscore.Parallel).
func Parallel(n int, task func(i int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				task(i)
			}
		})
	}
	workers.Wait()
}
