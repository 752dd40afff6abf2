package dynamotest

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Kind says what happens to a request that a [Fault] hits.
type Kind int

// Kinds of faults. "Applied" means that the request takes its full effect.
const (
	// Throttle: not applied, ProvisionedThroughputExceededException. The SDK retries it.
	Throttle Kind = iota + 1
	// Throttling: not applied, ThrottlingException, what on-demand tables and the control plane answer. The SDK retries it.
	Throttling
	// InternalError: not applied, HTTP 500 InternalServerError. The SDK retries it.
	InternalError
	// AppliedInternalError: applied, yet answered with HTTP 500, which the service reserves itself.
	AppliedInternalError
	// AccessDenied: not applied, AccessDeniedException. The SDK does not retry it.
	AccessDenied
	// InvalidCredentials: not applied, UnrecognizedClientException. The SDK does not retry it.
	InvalidCredentials
	// Delay: applied after Fault.Delay, unless the client has given up by then.
	Delay
	// LateWrite: applied after Fault.Delay, whether or not the client still waits: the write that comes after its author gave up.
	LateWrite
	// SlowAnswer: applied at once, answered after Fault.Delay.
	SlowAnswer
	// Hang: not applied and never answered; ends when the client gives up.
	Hang
	// HangAnswer: applied and never answered; ends when the client gives up.
	HangAnswer
	// LoseAnswer: applied, then the connection is closed instead of an answer.
	LoseAnswer
	// LoseRequest: the connection is closed before anything is applied.
	LoseRequest
	// UnknownOperation: not applied, UnknownOperationException, as from an emulator without the operation.
	UnknownOperation
	// BackupsUnavailable: not applied, ContinuousBackupsUnavailableException, as for a while after a table was created.
	BackupsUnavailable
)

// Fault describes requests and what shall happen to them. Empty fields match everything.
type Fault struct {
	Operation string             // "UpdateItem", …
	Table     string             //
	Key       string             // the partition key's value, a string or a number in plain form
	When      func(Request) bool // any further test; must not call the DB
	Skip      int                // lets so many matching requests pass first
	Count     int                // hits so many requests; 0 means 1, negative: all until Remove
	Kind      Kind
	Delay     time.Duration // for Delay, LateWrite, SlowAnswer; before anything else with other kinds
}

// Request is what a fault or hook can look at.
type Request struct {
	Operation string
	Table     string
	Key       map[string]types.AttributeValue // of the operations on one item
	Item      map[string]types.AttributeValue // of PutItem
	Condition string                          // ConditionExpression
	Update    string                          // UpdateExpression
	Values    map[string]types.AttributeValue
	Names     map[string]string
	// Consistent tells whether a read asked for a consistent answer.
	Consistent bool
	Body       []byte // the JSON as sent
}

// Injected is a fault at work.
type Injected struct {
	db    *DB
	fault Fault
	seen  int
	hits  int
}

// Inject adds a fault. Faults are asked in the order they were injected; the first that matches decides.
func (db *DB) Inject(f Fault) *Injected {
	db.mu.Lock()
	defer db.mu.Unlock()
	injected := &Injected{db: db, fault: f}
	db.mu.faults = append(db.mu.faults, injected)
	return injected
}

// Remove ends the fault. Requests it holds at the moment stay held.
func (i *Injected) Remove() {
	i.db.mu.Lock()
	defer i.db.mu.Unlock()
	i.db.mu.faults = slices.DeleteFunc(i.db.mu.faults, func(f *Injected) bool { return f == i })
}

// Hits is how many requests the fault has met.
func (i *Injected) Hits() int {
	i.db.mu.Lock()
	defer i.db.mu.Unlock()
	return i.hits
}

// OnRequest has f called at every request before anything else; what it returns happens to the request (nil: nothing). f runs without
// the engine's lock, concurrently for concurrent requests, and may block or call the DB. A second call replaces the hook, nil removes it.
func (db *DB) OnRequest(f func(Request) *Fault) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.hook = f
}

// faultFor finds the fault for the request, if any, and counts it.
func (db *DB) faultFor(r Request) *Fault {
	db.mu.Lock()
	hook := db.mu.hook
	db.mu.Unlock()
	if hook != nil {
		if f := hook(r); f != nil {
			return f
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for n, i := range db.mu.faults {
		if !i.fault.matches(r) {
			continue
		}
		if i.seen++; i.seen <= i.fault.Skip {
			continue
		}
		i.hits++
		if i.fault.Count >= 0 && i.hits >= max(i.fault.Count, 1) {
			db.mu.faults = slices.Delete(db.mu.faults, n, n+1)
		}
		return &i.fault
	}
	return nil
}

func (f *Fault) matches(r Request) bool {
	return (f.Operation == "" || f.Operation == r.Operation) &&
		(f.Table == "" || f.Table == r.Table) &&
		(f.Key == "" || r.hasKey(f.Key)) &&
		(f.When == nil || f.When(r))
}

// hasKey compares with every attribute of the key.
func (r Request) hasKey(value string) bool {
	for _, v := range r.Key {
		s := scalarString(v)
		if s == "S"+value || s == "N"+value {
			return true
		}
	}
	return false
}

// refusal is the error of the kinds that answer with one without applying anything.
func (k Kind) refusal() *apiError {
	switch k {
	case Throttle:
		return &apiError{http.StatusBadRequest, dynamoShape + "ProvisionedThroughputExceededException", "The level of configured provisioned throughput for the table was exceeded. Consider increasing your provisioning level with the UpdateTable API.", nil}
	case Throttling:
		return &apiError{http.StatusBadRequest, dynamoShape + "ThrottlingException", "Rate of requests exceeds the allowed throughput.", nil}
	case InternalError:
		return &apiError{http.StatusInternalServerError, dynamoShape + "InternalServerError", "Internal server error", nil}
	case AccessDenied:
		return &apiError{http.StatusBadRequest, coralService + "AccessDeniedException", "User is not authorized to perform this operation on this resource", nil}
	case InvalidCredentials:
		return &apiError{http.StatusBadRequest, coralService + "UnrecognizedClientException", "The security token included in the request is invalid.", nil}
	case UnknownOperation:
		return unknownOperation()
	case BackupsUnavailable:
		return &apiError{http.StatusBadRequest, dynamoShape + "ContinuousBackupsUnavailableException", "Backups are being enabled for the table. Please retry later", nil}
	}
	return nil
}

// sleep waits for d; false when ctx ended first. Without a wait it is true in any case: a request that has arrived is served, even
// if its author has gone.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
