package main

import (
	"bufio"
	"bytes"
	"io"

	"leavebroker/mlscore"
)

// lineReader reads lines up to a length.
type lineReader struct {
	in    *bufio.Reader
	limit int // bytes of a line
	count int // lines read so far
	line  []byte
}

// next reads a line, without its end and the white space around it, valid until
// the next call. At the end it is io.EOF. A line above the limit is skipped and
// is ErrMalformed.
func (r *lineReader) next() ([]byte, error) {
	r.line = r.line[:0]
	read, long := 0, false
	for {
		part, err := r.in.ReadSlice('\n')
		read += len(part)
		if long = long || len(r.line)+len(part) > r.limit; !long {
			r.line = append(r.line, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && (err != io.EOF || read == 0) {
			return nil, err
		}
		break
	}
	r.count++
	if long {
		return nil, refusal(mlscore.ErrMalformed, "a line of more than %d bytes", r.limit)
	}
	return bytes.TrimSpace(r.line), nil
}
