package hub

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// sender sends a body no faster than it may, and counts what is sent.
type sender struct {
	http.ResponseWriter
	ctx   context.Context
	speed int64 // bytes a second; 0 is without limit
	begun time.Time
	own   int64 // bytes sent by this one
	sent  *atomic.Int64
}

func (s *sender) Write(content []byte) (int, error) {
	if s.speed == 0 {
		written, err := s.ResponseWriter.Write(content)
		s.sent.Add(int64(written))
		return written, err
	}
	// Ten pieces a second: whoever looks each second sees it grow.
	piece := int(max(s.speed/10, 1))
	total := 0
	for total < len(content) {
		part := content[total:min(total+piece, len(content))]
		due := s.begun.Add(time.Duration(float64(s.own+int64(len(part))) / float64(s.speed) * float64(time.Second)))
		select {
		case <-s.ctx.Done():
			return total, s.ctx.Err()
		case <-time.After(time.Until(due)):
		}
		written, err := s.ResponseWriter.Write(part)
		total += written
		s.own += int64(written)
		s.sent.Add(int64(written))
		if err != nil {
			return total, err
		}
		if err := http.NewResponseController(s.ResponseWriter).Flush(); err != nil {
			return total, err
		}
	}
	return total, nil
}
