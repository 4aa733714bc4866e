"""Search of weights and hyper-parameters with Optuna: many trainings of one run file, equal but for what is searched.

``space`` says what may be searched and reads how a person writes it, ``trial`` trains one set of values, ``study`` asks
Optuna for the next one and can be interrupted, ``results`` writes the table, the picture and the best run file.
"""
