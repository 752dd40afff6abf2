package dynamotest

// legacyRequest holds the parameters from before expressions.
type legacyRequest struct{}

func (in *itemRequest) checkMixed() error                 { return nil }
func (in *itemRequest) parseLegacy() (expressions, error) { return expressions{}, nil }
