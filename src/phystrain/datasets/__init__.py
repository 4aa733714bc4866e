"""Small sets of real quantum-mechanical labels that ship with the package, each with its licence and citation."""
