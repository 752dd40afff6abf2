package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// linePeriod is how often progress is written where it can't be redrawn.
const linePeriod = 2 * time.Second

// screen writes sentences that stay and, below them on a terminal, a picture that is redrawn. All methods are safe for
// concurrent use.
type screen struct {
	began time.Time
	width func() int // of the terminal, in columns; nil where nothing can be redrawn

	mu struct {
		sync.Mutex
		out      io.Writer
		picture  []string  // as it stands on the terminal
		lastLine time.Time // of progress
	}
}

func newScreen(out *os.File) *screen {
	s := &screen{began: time.Now()}
	s.mu.out = out
	if fd := int(out.Fd()); term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		s.width = func() int {
			width, _, err := term.GetSize(fd)
			if err != nil || width < 20 {
				return 80
			}
			return width
		}
	}
	return s
}

// margin is the width of the time before each sentence.
const margin = 10

// say writes a sentence that stays, with the time since the start.
func (s *screen) say(sentence string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aboveLocked(fmt.Sprintf("%6.1f s  %s\n", time.Since(s.began).Seconds(), sentence))
}

// print writes lines that stay, as they are.
func (s *screen) print(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aboveLocked(strings.Join(lines, "\n") + "\n")
}

// aboveLocked writes text above the picture. It must be called with mu held.
func (s *screen) aboveLocked(text string) {
	picture := s.mu.picture
	s.eraseLocked()
	_, _ = io.WriteString(s.mu.out, text)
	s.drawLocked(picture)
}

// progress shows a moment: the picture on a terminal, otherwise the line, and not too often.
func (s *screen) progress(picture []string, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.width == nil {
		if time.Since(s.mu.lastLine) >= linePeriod {
			s.mu.lastLine = time.Now()
			s.aboveLocked(fmt.Sprintf("%6.1f s    %s\n", time.Since(s.began).Seconds(), line))
		}
		return
	}
	s.eraseLocked()
	s.drawLocked(picture)
}

// settle leaves the picture as it stands, and begins a new one the next time.
func (s *screen) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.picture = nil
	s.mu.lastLine = time.Time{}
}

func (s *screen) eraseLocked() {
	if n := len(s.mu.picture); n > 0 {
		// To the first line of the picture, then everything below the cursor away.
		fmt.Fprintf(s.mu.out, "\x1b[%dA\x1b[J", n)
	}
	s.mu.picture = nil
}

func (s *screen) drawLocked(picture []string) {
	if s.width == nil {
		return
	}
	width := s.width() - 1
	for _, line := range picture {
		// A line that wraps would be two, and the next picture in the wrong place.
		line = strings.Repeat(" ", margin) + line
		for utf8.RuneCountInString(line) > width {
			_, size := utf8.DecodeLastRuneInString(line)
			line = line[:len(line)-size]
		}
		_, _ = io.WriteString(s.mu.out, line+"\n")
	}
	s.mu.picture = picture
}
