// Boost.JSON's own code, which the headers hold, compiled once.
#include <boost/json/src.hpp>
