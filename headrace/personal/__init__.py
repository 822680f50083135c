"""Personal data: where it is in a text, and what takes its place before anything is written.

recogniser                          what a kind of personal data is found by
contact, money, national, network   the kinds
finding                             all kinds over one text
surrogates                          what stands in for a value
policies                            the door that every text and name comes through
mapping                             what surrogates stand for, encrypted, where that is kept
names                               names of people and places, by a model
"""
