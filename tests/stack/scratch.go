package stack

import (
	"fmt"
	"os"
	"path/filepath"
)

// A scratch is the folder a service keeps its data, its log and its temporary files in. It belongs to this process
// while its lock file is held.
type scratch struct {
	dir  string
	lock *os.File
}

const scratchPrefix = "kinesis-pulsar-stack-"

// newScratch makes a scratch folder, and removes those whose owners died without doing so: a broker's data is
// some 200 MB.
func newScratch(service string) (*scratch, error) {
	base := os.TempDir()
	removeAbandoned(base)
	// The folder gets the name that removeAbandoned looks for when its lock is held, not before.
	made, err := os.MkdirTemp(base, "."+scratchPrefix+service+"-")
	if err != nil {
		return nil, fmt.Errorf("making a scratch folder: %w", err)
	}
	dir := filepath.Join(base, filepath.Base(made)[1:])
	lock, err := tryLockFile(filepath.Join(made, "lock"))
	if err == nil {
		if err = os.Rename(made, dir); err == nil {
			return &scratch{dir: dir, lock: lock}, nil
		}
		lock.Close()
	}
	os.RemoveAll(made)
	return nil, fmt.Errorf("making a scratch folder: %w", err)
}

func (s *scratch) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scratch) remove() error {
	err := os.RemoveAll(s.dir)
	s.lock.Close()
	return err
}

// removeAbandoned removes the scratch folders in base that nobody holds. Errors are of no interest: the folder
// of another user cannot be opened, and should not be.
func removeAbandoned(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, scratchPrefix+"*"))
	for _, dir := range dirs {
		lock, err := tryLockFile(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		os.RemoveAll(dir)
		lock.Close()
	}
}
